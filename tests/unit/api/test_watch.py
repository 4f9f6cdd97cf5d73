"""An engine under watch: counted, and not changed."""

import asyncio

import pytest

from api_parts import HandClock, stub
from stateset_agents.agents import AgentConfig, MultiTurnAgent
from stateset_agents.api import EngineWatch


class Paced:
    """A clock by which a second passes whenever somebody looks."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        self.seconds += 1.0
        return self.seconds


def watched(agent, **options):
    heard = []
    watch = EngineWatch(options.pop("clock", HandClock()), lambda name, value: heard.append((name, value)))
    watch.attach(agent)
    return watch, heard


async def test_a_reply_is_counted_and_timed_whether_it_is_streamed_or_not():
    for streamed in (False, True):
        agent = stub("Yes.")  # Y e s . and the end
        watch, heard = watched(agent, clock=Paced())
        if streamed:
            assert [piece async for piece in agent.stream_turn([], "Hi")][-1].content == "Yes."
        else:
            assert (await agent.process_turn([], "Hi")).content == "Yes."
        prompt = agent.prompt_tokens("Hi")
        assert dict(heard)["prompt_tokens"] == prompt == watch.prompt_tokens
        assert dict(heard)["generation_tokens"] == 5 == watch.generation_tokens
        assert dict(heard)["time_to_first_token"] == 1.0
        assert dict(heard)["time_per_output_token"] == 1.0
        assert (watch.running, watch.waiting) == (0, 0)


async def test_a_model_says_the_same_under_watch():
    plain, seen = (MultiTurnAgent(AgentConfig("tiny", max_new_tokens=8)) for _ in range(2))
    for agent in (plain, seen):
        await agent.initialize()
    watched(seen)
    turns = [await agent.fork("k").process_turn([], "Hello") for agent in (plain, seen)]
    assert turns[0].span.ids == turns[1].span.ids
    assert turns[0].span.logprobs == turns[1].span.logprobs
    for agent in (plain, seen):
        await agent.aclose()


async def test_an_agent_is_watched_once():
    agent = stub()
    watch, _ = watched(agent)
    engine = agent.runtime.engine
    watch.attach(agent)
    assert agent.runtime.engine is engine
    engine.version = 7
    assert engine.inner.version == 7
    assert engine.version == 7


async def test_work_without_a_token_is_a_stall_and_idleness_is_none():
    clock = HandClock()
    agent = stub("Yes.", faults={0: "hang", 1: "hang"})
    watch, _ = watched(agent, clock=clock)
    clock.pass_(1000)
    assert not watch.stalled(30)
    for seconds, stalled in ((20, False), (11, True)):  # cut turns add up
        turn = asyncio.create_task(agent.process_turn([], "Hi"))
        await asyncio.sleep(0.01)
        assert (watch.waiting, watch.running) == (1, 0)
        clock.pass_(seconds)
        assert watch.stalled(30) is stalled
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        clock.pass_(1000)
        assert (watch.waiting, watch.last_token_age) == (0, 0)
    await agent.process_turn([], "Hi")
    turn = asyncio.create_task(agent.process_turn([], "Hi"))
    await asyncio.sleep(0)
    assert not watch.stalled(30)  # a token came: all is well again
    await turn


async def test_an_engine_that_fails_is_not_counted_as_busy():
    agent = stub(faults={0: "raise"})
    watch, _ = watched(agent)
    with pytest.raises(Exception, match="told to fail"):
        await agent.process_turn([], "Hi")
    assert (watch.running, watch.waiting) == (0, 0)
