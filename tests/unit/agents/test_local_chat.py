import asyncio
import gc

import pytest
import torch

from stateset_agents.agents import AgentConfig, LocalChat, MultiTurnAgent
from stateset_agents.core.errors import ConfigError, ModelError
from stateset_agents.engines.chat_model import ChatFailed, ChatModel

ASKED = [{"role": "system", "content": "Be a customer."}, {"role": "user", "content": "Hello! How can I help you?"}]
OPTIONS = {"temperature": 1.0, "max_tokens": 8}


def tiny():
    return LocalChat("tiny", dtype="float32", device="cpu")


async def test_an_answer_depends_on_key_and_messages_alone():
    chat = tiny()
    assert isinstance(chat, ChatModel)
    alone = await chat.complete(ASKED, key="k", **OPTIONS)
    others = [chat.complete(ASKED, key=f"other {n}", **OPTIONS) for n in range(7)]
    together = await asyncio.gather(*others, chat.complete(ASKED, key="k", **OPTIONS))
    assert together[-1] == alone
    assert len(set(together)) == 8
    other = [*ASKED[:1], {"role": "user", "content": "Hi"}]
    assert await chat.complete(other, key="k", **OPTIONS) != alone
    await chat.aclose()
    assert await chat.complete(ASKED, key="k", **OPTIONS) == alone


async def test_it_speaks_as_an_agent_on_the_same_model_does():
    agent = MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu", temperature=0.0, max_new_tokens=8))
    same = await tiny().complete(ASKED, key="k", temperature=0.0, max_tokens=8)
    assert same == await agent.generate_response(ASKED)


async def test_the_weights_are_held_once_and_let_go_with_their_last_holder():
    one, two = tiny(), tiny()
    await asyncio.gather(one.initialize(), two.initialize())
    assert one._runtime is two._runtime
    assert LocalChat("tiny", device="cpu")._runtime is not one._runtime
    held = one._runtime
    await held.aclose()
    del one, two, held
    gc.collect()
    assert tiny()._runtime.loaded is None


async def test_a_frozen_copy_stays_as_it_was_while_the_agent_learns(tmp_path):
    agent = MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu"))
    await agent.initialize()
    chat = LocalChat.frozen(agent)
    before = await chat.complete(ASKED, key="k", **OPTIONS)
    with torch.no_grad():
        for weight in agent.runtime.model.model.parameters():
            weight.zero_()
    assert await chat.complete(ASKED, key="k", **OPTIONS) == before
    agent.load_from(str(tmp_path))
    with pytest.raises(ModelError, match=str(tmp_path)):
        await LocalChat.frozen(agent).initialize()


async def test_messages_that_do_not_fit_are_no_answer():
    chat = tiny()
    await chat.initialize()
    limit = chat._runtime.loaded.max_context
    long = [{"role": "user", "content": "word " * limit}]
    with pytest.raises(ChatFailed, match=rf"tiny: the messages have \d+ tokens, its context is {limit}"):
        await chat.complete(long, key="k", **OPTIONS)


async def test_an_engine_that_breaks_gives_no_answer_and_a_model_that_is_missing_is_told_as_such():
    chat = LocalChat("stub://")
    await chat.initialize()
    await chat._runtime.loaded.engine.aclose()
    with pytest.raises(ChatFailed, match="the stub engine is closed"):
        await chat.complete(ASKED, key="k", **OPTIONS)
    await chat.aclose()
    with pytest.raises(ModelError, match="no-such-model"):
        await LocalChat("./no-such-model").complete(ASKED, key="k", **OPTIONS)
    with pytest.raises(ConfigError, match="model_name"):
        LocalChat(" ")


def test_results_say_which_model_it_is():
    assert tiny().describe() == {"kind": "local", "model": "tiny", "repeatable": True}
