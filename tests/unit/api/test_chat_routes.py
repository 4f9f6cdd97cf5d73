import asyncio
import json
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from api_parts import held, until
from serving import HI, Serving, client, service_of
from stateset_agents.agents import AgentConfig, MultiTurnAgent, ToolAgent
from stateset_agents.api.access import Tokens
from stateset_agents.api.app import Door
from stateset_agents.api.conversation_log import ConversationLog
from stateset_agents.api.limits import ServeLimits
from stateset_agents.api.service import Opened
from stateset_agents.engines.stub import StubEngine


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    assert answer.headers["content-type"] == "text/event-stream"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.text)
    return [(name, json.loads(data)) for name, data in found]


async def test_a_conversation_goes_as_documented(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        answer = await http.post("/chat/start", json={"user_id": "user123", "context": {"topic": "support"}})
        started = answer.json()
        place = f"/chat/{started['conversation_id']}"
        assert started == {
            "conversation_id": started["conversation_id"],
            "status": "started",
            "message": "Hello! How can I help you today?",
        }
        assert answer.headers["location"] == place
        assert re.fullmatch(r"conv_[\w-]{22,}", started["conversation_id"])
        reply = (await http.post(f"{place}/message", json={"message": "I need help with my order"})).json()
        assert reply == {
            "conversation_id": started["conversation_id"],
            "response": "Hello there",
            "turn_count": 2,
            "status": "ongoing",
        }
        history = (await http.get(f"{place}/history")).json()
        assert set(history) == {"conversation_id", "turns", "status"}
        assert [(turn["role"], turn["content"]) for turn in history["turns"]] == [
            ("assistant", "Hello! How can I help you today?"),
            ("user", "I need help with my order"),
            ("assistant", "Hello there"),
        ]
        assert all(set(turn) == {"role", "content", "timestamp"} for turn in history["turns"])
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", turn["timestamp"]) for turn in history["turns"])
        for _ in range(2):
            ended = await http.delete(place)
            assert (ended.status_code, ended.json()["status"]) == (200, "ended")
        assert (await http.get(f"{place}/history")).json()["status"] == "ended"
        over = await http.post(f"{place}/message", json={"message": "Still there?"})
        assert (over.status_code, over.json()["reason"]) == (410, "ended")


@pytest.mark.parametrize(
    ("flag", "config", "said"), [(None, "Welcome.", "Welcome."), ("", "Welcome.", ""), ("A", None, "A")]
)
async def test_the_greeting_is_the_flags_else_the_configs(
    tmp_path: Path, flag: str | None, config: str | None, said: str
):
    service = service_of(tmp_path, greeting=flag)
    service = replace(service, opened=replace(service.opened, greeting=config))
    async with client(service) as http:
        assert (await http.post("/chat/start", json={})).json()["message"] == said


async def test_a_conversation_starts_without_a_body(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        for given in ({}, {"headers": {"content-type": "application/json"}}):
            answer = await http.post("/chat/start", **given)
            assert (answer.status_code, answer.json()["status"]) == (200, "started")
        assert (await http.post("/chat/start", json=[])).status_code == 422


async def test_a_request_that_no_route_takes_is_logged_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "stateset_agents")
    async with client(service_of(tmp_path)) as http:
        assert (await http.get("/no/such")).status_code == 404
        assert 'route="none"' in (await http.get("/metrics")).text
    assert "GET - 404 in " in caplog.text


async def test_a_stream_has_the_reply_in_pieces_and_the_documented_json_at_its_end(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]
        events = events_of(await http.post(f"{place}/message", json={"message": "Hi", "stream": True}))
    assert [name for name, _ in events] == ["delta"] * (len(events) - 1) + ["done"]
    assert "".join(data["text"] for _, data in events[:-1]) == "Hello there"
    assert events[-1][1] == {
        "conversation_id": place.removeprefix("/chat/"),
        "response": "Hello there",
        "turn_count": 2,
        "status": "ongoing",
    }


def test_headers_and_a_comment_come_before_a_first_token_that_takes_long(tmp_path: Path):
    agent = held()
    with Serving(tmp_path, agent) as server, httpx.Client(base_url=server.url) as http:
        place = http.post("/chat/start", json={}).headers["location"]
        with http.stream("POST", f"{place}/message", json={"message": "Hi", "stream": True}) as answer:
            lines = answer.iter_lines()
            assert (answer.status_code, next(lines), agent.answering) == (200, ": keep-alive", ["Hi"])
            assert http.post(f"{place}/message", json={"message": "Hi", "stream": True}).status_code == 409
            assert http.delete(place).status_code == 200
            told = [line for line in lines if line]
        assert told[0] == "event: error"
        assert json.loads(told[1].removeprefix("data: "))["status"] == 410
        assert http.post(f"{place}/message", json={"message": "Hi", "stream": True}).status_code == 410


def test_headers_of_a_completion_that_waits_for_a_place_come_before_it(tmp_path: Path):
    agent = held()
    with (
        Serving(tmp_path, agent, limits=ServeLimits(max_running=1, max_waiting=1)) as server,
        httpx.Client(base_url=server.url) as http,
        ThreadPoolExecutor(1) as aside,
    ):
        place = http.post("/chat/start", json={}).headers["location"]
        first = aside.submit(http.post, f"{place}/message", json={"message": "Hi"})
        while not agent.answering:
            time.sleep(0.01)
        body = {"model": "agent", "messages": HI, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert (answer.status_code, next(lines)) == (200, ": keep-alive")
            assert not first.done()
            http.delete(place)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert first.result().status_code == 410


async def test_calls_of_tools_are_events_and_counted(tmp_path: Path):
    call = '{"name": "double", "arguments": {"number": 4}}'
    agent = ToolAgent(AgentConfig(f"stub://{call}|It is 8."), tools=[double])
    service = service_of(tmp_path, agent)
    async with client(service) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]
        events = events_of(await http.post(f"{place}/message", json={"message": "Twice 4?", "stream": True}))
        tools = [data for name, data in events if name == "tool"]
        assert [tool["role"] for tool in tools] == ["assistant", "tool"]
        assert tools[1]["content"] == "8"
        assert events[-1][1]["response"] == "It is 8."
        assert 'grpo_serve_tool_calls_total{outcome="ok",tool="double"} 1.0' in (await http.get("/metrics")).text


def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"message": "Hi"}, 200),
        ({}, 422),
        ({"message": ""}, 422),
        ({"message": " \n"}, 422),
        ({"message": None}, 422),
        ({"message": "Hi", "stream": "yes"}, 422),
        ({"message": "Hi", "steam": True}, 422),
        ({"message": "x" * 20_000}, 422),
    ],
)
async def test_what_is_no_message_is_refused_with_its_place(tmp_path: Path, body: dict[str, Any], status: int):
    async with client(service_of(tmp_path)) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]
        answer = await http.post(f"{place}/message", json=body)
        assert answer.status_code == status
        if "errors" in answer.json():
            assert {error["loc"] for error in answer.json()["errors"]} <= {"message", "stream", "steam"}


async def test_a_repeated_request_with_its_key_gets_the_same_reply_and_no_second_turn(tmp_path: Path):
    async with client(service_of(tmp_path, "stub://one|two|three")) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]

        async def say(message: str, key: str | None, stream: bool = False) -> httpx.Response:
            headers = {"Idempotency-Key": key} if key else {}
            return await http.post(f"{place}/message", json={"message": message, "stream": stream}, headers=headers)

        first, again = await say("Hi", "a"), await say("Hi", "a")
        assert first.json() == again.json()
        assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
        assert events_of(await say("Hi", "a", stream=True))[-1] == ("done", first.json())
        assert (await say("Other", "a")).status_code == 422
        assert (await say("Hi", "b")).json()["response"] == "two"
        assert (await say("Hi", "x" * 256)).status_code == 422
        assert len((await http.get(f"{place}/history")).json()["turns"]) == 5


async def test_a_repeated_start_with_its_key_begins_no_second_conversation(tmp_path: Path):
    log = ConversationLog(tmp_path / "log.jsonl")
    async with client(service_of(tmp_path, log=log)) as http:

        async def start(key: str, **body: Any) -> httpx.Response:
            return await http.post("/chat/start", json=body, headers={"Idempotency-Key": key})

        first, again = await start("a", user_id="u"), await start("a", user_id="u")
        assert (first.json(), first.headers["location"]) == (again.json(), again.headers["location"])
        assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
        assert (await start("b", user_id="u")).json() != first.json()
        assert [(await start(key, user_id="v")).status_code for key in ("a", "", "x" * 256)] == [422, 422, 422]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


async def test_a_second_message_while_the_first_is_answered_is_409_with_a_time(tmp_path: Path):
    agent = MultiTurnAgent.from_model("stub://")
    await agent.initialize()
    agent.runtime.engine = StubEngine(agent.runtime.codec._tokenizer, agent.runtime.codec, latency=0.3)
    async with client(service_of(tmp_path, agent)) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]
        answers = await asyncio.gather(*(http.post(f"{place}/message", json={"message": "Hi"}) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert int(refused.headers["retry-after"]) == refused.json()["retry_after"] >= 1


async def test_clients_get_places_in_turn(tmp_path: Path):
    agent = held()
    service = service_of(
        tmp_path, agent, door=Door(tokens=Tokens(["one", "two"])), limits=ServeLimits(max_running=1, max_waiting=4)
    )
    one, two = ({"Authorization": f"Bearer {token}"} for token in ("one", "two"))
    async with client(service) as http:

        async def ask(headers: dict[str, str], name: str, waiting: int, stream: bool = False) -> asyncio.Task[Any]:
            place = (await http.post("/chat/start", json={}, headers=headers)).headers["location"]
            body = {"message": name, "stream": stream}
            task = asyncio.create_task(http.post(f"{place}/message", json=body, headers=headers))
            await until(lambda: service.conversations.gate.waiting == waiting or task.done())
            return task

        tasks = [await ask(one, "one a", 0)]
        await until(lambda: agent.answering)
        tasks += [await ask(one, f"one {name}", waiting) for waiting, name in enumerate("bcd", 1)]
        tasks.append(await ask(two, "two a", 4))
        tasks.append(await ask(two, "two b", 4, stream=True))
        order = []
        for _ in range(5):
            await until(lambda: agent.answering)
            order += agent.answering
            agent.go.release()
            await until(lambda last=order[-1]: agent.answering != [last])
        assert order == ["one a", "one b", "two a", "one c", "two b"]
        assert [(await task).status_code for task in tasks] == [200, 200, 200, 429, 200, 200]


async def test_more_conversations_than_allowed_are_429_with_a_time(tmp_path: Path):
    service = service_of(tmp_path, limits=ServeLimits(max_conversations=2))
    async with client(service) as http:
        answers = [await http.post("/chat/start", json={}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["retry-after"]) > 1000
        assert "grpo_serve_rate_limited_total 1.0" in (await http.get("/metrics")).text
        await http.delete(answers[0].headers["location"])
        assert (await http.post("/chat/start", json={})).status_code == 200


async def test_history_comes_in_pages(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        place = (await http.post("/chat/start", json={})).headers["location"]
        for _ in range(2):
            await http.post(f"{place}/message", json={"message": "Hi"})

        async def roles(query: str) -> list[str]:
            return [turn["role"] for turn in (await http.get(f"{place}/history{query}")).json()["turns"]]

        assert await roles("") == ["assistant", "user", "assistant", "user", "assistant"]
        assert await roles("?after=1&limit=2") == ["user", "assistant"]
        assert await roles("?after=9") == []
        for wrong in ("?after=-1", "?limit=0", "?limit=1001", "?after=x", f"?after={2**63}"):
            assert (await http.get(f"{place}/history{wrong}")).status_code == 422


@pytest.mark.parametrize("name", ["conv_unknown", "..", "%2e%2e%2fetc", "a%00b", "x" * 5000, "%F0%9F%98%80", "'--"])
async def test_an_id_that_nobody_has_is_404(tmp_path: Path, name: str):
    async with client(service_of(tmp_path)) as http:
        for method, path in [("GET", "/history"), ("POST", "/message"), ("DELETE", "")]:
            body = {"message": "Hi"} if method == "POST" else None
            answer = await http.request(method, f"/chat/{name}{path}", json=body)
            assert answer.status_code in (404, 405), (method, answer.text)


async def test_however_many_ask_for_its_health_the_store_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = service_of(tmp_path)
    asked = []

    async def ping() -> None:
        asked.append(1)
        await asyncio.sleep(0.05)

    monkeypatch.setattr(service.conversations, "ping", ping)
    async with client(service) as http:
        answers = await asyncio.gather(*(http.get(place) for place in ("/health", "/readyz") * 20))
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 1


async def test_another_checkpoint_comes_with_its_greeting_unless_the_operator_has_one(tmp_path: Path):
    for greeting, expected in ((None, "Welcome"), ("Mine", "Mine")):
        another = MultiTurnAgent.from_model("stub://")
        service = service_of(tmp_path, greeting=greeting, reopen=lambda agent=another: Opened(agent, 8, "Welcome"))
        async with client(service) as http:
            await service.reload()
            assert (await http.get("/health")).json()["last_reload"] == "ok"
            assert (await http.post("/chat/start")).json()["message"] == expected


async def test_a_request_id_is_echoed_if_it_is_harmless(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        for given, echoed in [
            ("abc-123", True),
            ("x" * 64, True),
            ("x" * 65, False),
            ("a b", False),
            ("a/../b", False),
            ("a\tb", False),
            ("", False),
        ]:
            got = (await http.get("/livez", headers={"X-Request-ID": given})).headers["x-request-id"]
            assert (got == given) is echoed
            assert re.fullmatch(r"[\w-]{1,64}", got)


async def test_what_nobody_foresaw_is_500_without_a_word_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    service = service_of(tmp_path)
    async with client(service) as http:
        service.conversations.history = broken  # type: ignore[method-assign]
        answer = await http.get("/chat/conv_x/history")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert "CANARY" not in answer.text
        assert "CANARY" in caplog.text
        assert answer.json()["instance"] in caplog.text


async def broken(*_: object) -> None:
    raise OSError("CANARY /home/secret")


async def test_the_log_has_what_was_said_without_what_is_personal(tmp_path: Path):
    file = tmp_path / "log" / "conversations.jsonl"
    service = service_of(tmp_path, log=ConversationLog(file, secrets=["my-secret-token"]))
    async with client(service) as http:
        place = (await http.post("/chat/start", json={"user_id": "ann@example.com"})).headers["location"]
        message = (
            "I am ann.lee+x@mail.example.co.uk, card 4111-1111 1111 1111, my-secret-token\n\x1b[2J=cmd() order 1234"
        )
        await http.post(f"{place}/message", json={"message": message})
        await http.delete(place)
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines] == ["started", "turn", "ended"]
    assert lines[0]["user_id"] == "***"
    assert lines[1]["message"] == "I am ***, card ***, ***\n\x1b[2J=cmd() order 1234"
    assert lines[1]["response"] == "Hello there"
    assert not any(ord(character) < 32 or ord(character) > 126 for line in text.splitlines() for character in line)
