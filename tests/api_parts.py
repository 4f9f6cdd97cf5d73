"""Parts for tests of the service: agents that say what they are told to, and a clock that is set by hand."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from stateset_agents.agents import AgentConfig, AgentRuntime, MultiTurnAgent
from stateset_agents.api import Conversations, ServeLimits
from stateset_agents.chat import ChatCodec
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer

tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)


def stub(*replies, agent_class=MultiTurnAgent, max_context=0, config=None, tools=None, **engine):
    """An agent that says these replies in turn; without any, what the user said."""
    more = {} if tools is None else {"tools": tools}
    agent = agent_class(config or AgentConfig("stub://"), **more)
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, replies or None, **engine), max_context)
    return agent


class HandClock:
    """Wall clock and monotonic clock, each set by hand."""

    def __init__(self):
        self.wall = datetime(2026, 1, 2, 12, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.seconds

    def pass_(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


@asynccontextmanager
async def serving(agent, store, clock=None, observe=None, greeting="Hello!", watch=None, **limits):
    """A service that is open."""
    more = {"observe": observe} if observe else {}
    service = Conversations(
        agent, store, ServeLimits(**limits), greeting=greeting, clock=clock or HandClock(), watch=watch, **more
    )
    await service.open()
    try:
        yield service
    finally:
        await service.close()


class Held(MultiTurnAgent):
    """Answers when it is told to: each turn waits for `go`."""

    shared = ("begun", "go", "answering")

    def __init__(self, config=None):
        super().__init__(config or AgentConfig("stub://"))
        self.begun, self.go, self.answering = asyncio.Semaphore(0), asyncio.Semaphore(0), []

    async def process_turn(self, history, user_input, context=None):
        self.answering.append(user_input)
        self.begun.release()
        try:
            await self.go.acquire()
            return await super().process_turn(history, user_input, context)
        finally:
            self.answering.remove(user_input)


def said(history):
    return [(turn.role, turn.content) for turn in history.turns]


def held():
    """A `Held` agent whose engine says what the user said."""
    agent = Held()
    agent.runtime = stub().runtime
    return agent


async def until(condition):
    """Wait for something that no event tells of."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
