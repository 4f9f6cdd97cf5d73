"""OpenAI's own client, over a socket."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

openai = pytest.importorskip("openai")

from serving import HI, Serving  # noqa: E402 - after the check that the client is here
from stateset_agents.agents import MultiTurnAgent  # noqa: E402
from stateset_agents.api.access import Tokens  # noqa: E402
from stateset_agents.api.app import Door  # noqa: E402
from stateset_agents.api.limits import ServeLimits  # noqa: E402
from stateset_agents.engines.stub import StubEngine  # noqa: E402

CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def of(server: Serving, token: str = "none", **options: Any) -> Any:  # noqa: S107 - none is needed
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, **options)


def test_models_chat_and_stream(tmp_path: Path):
    with Serving(tmp_path) as server:
        client = of(server)
        assert [model.id for model in client.models.list()] == ["agent"]
        whole = client.chat.completions.create(model="agent", messages=HI, logprobs=True, user="me")
        assert whole.choices[0].message.content == "Hello there"
        assert whole.choices[0].logprobs.content[0].token == "H"
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + 7
        chunks = list(
            client.chat.completions.create(
                model="agent", messages=HI, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there"
        assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "stop"]
        assert chunks[-1].usage == whole.usage


def test_the_clients_own_stream_helper_gathers_the_reply(tmp_path: Path):
    with Serving(tmp_path) as server, of(server).chat.completions.stream(model="agent", messages=HI) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello there"


def test_a_tool_is_called_and_its_result_is_answered(tmp_path: Path):
    with Serving(tmp_path, f"stub://{quote(CALL)}|It is 22 degrees.") as server:
        client = of(server)
        first = client.chat.completions.create(model="agent", messages=HI, tools=[WEATHER], tool_choice="auto")
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        messages = [*HI, message, {"role": "tool", "tool_call_id": call.id, "content": "22"}]
        second = client.chat.completions.create(model="agent", messages=messages, tools=[WEATHER])
        assert second.choices[0].message.content == "It is 22 degrees."
        with client.chat.completions.stream(model="agent", messages=HI, tools=[WEATHER]) as stream:
            streamed = stream.get_final_completion().choices[0]
        assert json.loads(streamed.message.tool_calls[0].function.arguments) == {"city": "Paris"}
        assert streamed.finish_reason == "tool_calls"


def test_each_error_is_the_clients_own_class_for_it(tmp_path: Path):
    with Serving(tmp_path, door=Door(tokens=Tokens(["right-token"]))) as server:
        with pytest.raises(openai.AuthenticationError) as refused:
            of(server, "wrong-token").models.list()
        assert refused.value.code == "invalid_api_key"
        client = of(server, "right-token")
        with pytest.raises(openai.NotFoundError, match="agent"):
            client.chat.completions.create(model="other", messages=HI)
        with pytest.raises(openai.BadRequestError) as wrong:
            client.chat.completions.create(model="agent", messages=HI, temperature=9)
        assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
        assert wrong.value.request_id


async def failing_agent(**behaviour: Any) -> MultiTurnAgent:
    agent = MultiTurnAgent.from_model("stub://")
    await agent.initialize()
    codec = agent.runtime.codec
    agent.runtime.engine = StubEngine(codec._tokenizer, codec, **behaviour)
    return agent


async def test_what_fails_once_is_asked_again_and_works(tmp_path: Path):
    agent = await failing_agent(faults={0: "raise"})
    with Serving(tmp_path, agent) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            reply = await client.chat.completions.create(model="agent", messages=HI)
            assert reply.choices[0].message.content
            assert agent.runtime.engine.inner.calls == 2  # type: ignore[attr-defined]


async def test_a_stream_that_is_closed_frees_its_place(tmp_path: Path):
    import asyncio

    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=4000)
    limits = ServeLimits(max_running=1, max_waiting=0)
    with Serving(tmp_path, agent, limits=limits) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="agent", messages=HI, stream=True)
            await anext(aiter(stream))
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="agent", messages=HI)
            await stream.close()
            for _ in range(50):
                if server.service.conversations.gate.running == 0:
                    break
                await asyncio.sleep(0.01)
            assert server.service.conversations.gate.running == 0
            again = await client.chat.completions.create(model="agent", messages=HI, max_tokens=2)
            assert again.usage.completion_tokens == 2
