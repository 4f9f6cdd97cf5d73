"""One fork of the agent for each conversation.

Invariant: a fork is used by one turn at a time, and only if it has lived through everything that is stored of its
conversation; otherwise another is made, which is told the history. Which of the two answers is a matter of time (the
engine's cache is kept with the fork), not of what is said. What a fork remembers in attributes of its own goes with it:
what must last belongs into a turn's metadata, which is stored.

An agent that was replaced answers the turns that it had begun, and is closed after the last of them.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ..agents import Agent, MultiTurnAgent
from ..core.trajectory import ConversationTurn
from .limits import ServeLimits
from .store import Conversation, ConversationStore
from .transcript import history_of


@dataclass
class Fork:
    """A fork and what it has lived through.

    Attributes:
        agent: the fork.
        version: of the agent that it was made from.
        history: the conversation as the fork knows it.
        turns: stored turns that this is.
    """

    agent: Agent
    version: int
    history: list[ConversationTurn] = field(default_factory=list)
    turns: int = 0


@dataclass
class _Served:
    """An agent, and how many turns it is answering."""

    agent: Agent
    version: int
    turns: int = 0


class Forks:
    """The agent, and its forks.

    Args:
        agent: ready to answer.
        limits: how many forks are kept, and how long one may grow.
    """

    def __init__(self, agent: Agent, limits: ServeLimits) -> None:
        self._limits = limits
        self._served = _Served(_bounded(agent, limits), version=1)
        self._kept: OrderedDict[str, Fork] = OrderedDict()

    @property
    def agent(self) -> Agent:
        """Who answers."""
        return self._served.agent

    @property
    def version(self) -> int:
        """How many agents there have been."""
        return self._served.version

    @property
    def kept(self) -> int:
        """Forks that wait for their conversation's next turn."""
        return len(self._kept)

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[_Served]:
        """The agent, which is not closed before the block ends."""
        served = self._served
        served.turns += 1
        try:
            yield served
        finally:
            served.turns -= 1
            await self._close_if_unused(served)

    async def take(self, conversation: Conversation, served: _Served, store: ConversationStore) -> Fork:
        """The fork for a conversation's next turn, to be given to `keep` or `release` afterwards."""
        fork = self._kept.pop(conversation.id, None)
        if fork is not None:
            if fork.turns == conversation.turns:
                return fork
            fork.agent.release()
        stored = await store.turns(conversation.id)
        # Another key than that of the fork before: no noise is drawn twice in a conversation.
        agent = served.agent.fork(f"{conversation.id}@{len(stored)}")
        return Fork(agent, served.version, history_of(stored), len(stored))

    def keep(self, conversation_id: str, fork: Fork) -> None:
        """Put a fork away until the next turn; those that were not used for longest make room."""
        if fork.version != self.version or sum(len(row) for row in fork.agent.rows) > self._limits.fork_tokens:
            fork.agent.release()
            return
        self._kept[conversation_id] = fork
        while len(self._kept) > self._limits.kept_forks:
            self._kept.popitem(last=False)[1].agent.release()

    def forget(self, conversation_id: str) -> None:
        """Release what is kept for a conversation."""
        fork = self._kept.pop(conversation_id, None)
        if fork is not None:
            fork.agent.release()

    async def replace(self, agent: Agent) -> None:
        """Let another agent answer from the next turn on."""
        before = self._served
        self._served = _Served(_bounded(agent, self._limits), before.version + 1)
        self._forget_all()
        await self._close_if_unused(before)

    async def aclose(self) -> None:
        """Release all forks and close the agent."""
        self._forget_all()
        await close_agent(self._served.agent)

    def _forget_all(self) -> None:
        for conversation_id in list(self._kept):
            self.forget(conversation_id)

    async def _close_if_unused(self, served: _Served) -> None:
        if served is not self._served and served.turns == 0:
            await close_agent(served.agent)


def _bounded(agent: Agent, limits: ServeLimits) -> Agent:
    most = limits.max_new_tokens
    if isinstance(agent, MultiTurnAgent) and most is not None and agent.config.max_new_tokens > most:
        agent.config = dataclasses.replace(agent.config, max_new_tokens=most)
    return agent


async def close_agent(agent: Agent) -> None:
    """Stop the agent's engine, if it has one."""
    if isinstance(agent, MultiTurnAgent):
        await agent.aclose()
