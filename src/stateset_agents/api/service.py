"""One server's parts, put together: the agent, its conversations, the doors to them, and what is known of all that.

Invariant: what the doors tell of the server is read from the parts themselves. Another checkpoint takes the place of
the one that is served after it was verified and has said something, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fastapi import APIRouter
from starlette.types import ASGIApp

from ..agents import MultiTurnAgent
from ..agents.tool_agent import ToolAgent
from ..core.errors import StatesetError
from .app import Door, create_app
from .chat_routes import chat_routes
from .completions import Completions
from .condition import Condition
from .conversation_log import ConversationLog
from .conversations import GREETING, Conversations
from .errors import StoreFailed
from .limits import ServeLimits
from .metrics import Metrics
from .openai_routes import openai_routes
from .status_routes import status_routes
from .store import ConversationStore
from .watch import Observe

logger = logging.getLogger(__name__)

STALLED_SECONDS = 60.0
"""Without a token while there is work: the engine hangs. A long prompt takes less, or its reply would time out."""

_STORE_SECONDS = 5.0
"""For which the store's last answer counts: it is asked by a write that waits for the disk."""

_SWEEP_SECONDS = 30.0


@dataclass(frozen=True)
class Opened:
    """A checkpoint that can be served.

    Attributes:
        agent: its model may still have to be loaded.
        version: step after which it was saved; None where it does not say.
        greeting: that its config names; None for none.
    """

    agent: MultiTurnAgent
    version: int | None = None
    greeting: str | None = None


@dataclass
class Service:
    """A server without its socket.

    Args:
        model: name under which the agent is served.
        opened: the checkpoint.
        make_store: makes what keeps conversations; it is told who hears of its times.
        door: how requests come in.
        limits: how much of everything.
        greeting: what conversations begin with; "" for nothing, None for what the checkpoint says.
        log: of conversations.
        reopen: opens and verifies the checkpoint again, for `reload`.
        more: further routes.
    """

    model: str
    opened: Opened
    make_store: Callable[[Observe], ConversationStore]
    door: Door = field(default_factory=Door)
    limits: ServeLimits = field(default_factory=ServeLimits)
    greeting: str | None = None
    log: ConversationLog | None = None
    reopen: Callable[[], Opened] | None = None
    more: tuple[APIRouter, ...] = ()

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.model)
        self.conversations = Conversations(
            self.opened.agent,
            self.make_store(self.metrics.observe),
            self.limits,
            greeting=self._greeting_of(self.opened),
            observe=self.metrics.observe,
        )
        self.condition = Condition(self.model, version=self.opened.version)
        self.condition.checks |= {"engine": self._engine, "store": self._store, "queue": self._queue}
        self._asked_store: tuple[float, str | None] = (-_STORE_SECONDS, None)
        self._asking_store = asyncio.Lock()
        self._sweeping: asyncio.Task[None] | None = None
        self._know_tools(self.opened.agent)
        self._read_gauges()

    def app(self) -> ASGIApp:
        """The application."""
        most = self.limits.max_new_tokens or self.door.limits.new_tokens
        limits = replace(self.door.limits, new_tokens=min(most, self.door.limits.new_tokens))
        routers = [
            chat_routes(self.conversations, self.log),
            openai_routes(Completions(self.conversations, limits), self.model, self.condition.since),
            status_routes(
                self.condition, self.metrics, lambda: self.conversations.active, lambda: (self._running, self._waiting)
            ),
            *self.more,
        ]
        return create_app(routers, self.metrics, self.door, lambda: self.condition.phase == "draining")

    async def open(self) -> None:
        """Load the agent and open the store, and be ready.

        Raises:
            StatesetError: one of them cannot be.
        """
        begun = time.monotonic()
        interrupted = await self.conversations.open()
        if self.condition.phase == "loading":
            self.condition.phase = "ready"
        self._sweeping = asyncio.create_task(self._sweep())
        logger.info("ready after %.1f s", time.monotonic() - begun)
        if interrupted:
            logger.warning(
                "turns that an earlier server had not finished: %d; they are marked as interrupted", interrupted
            )

    async def drain(self, seconds: float) -> None:
        """Refuse what is new, wait for what runs, cut the rest, and let go of everything."""
        self.condition.phase = "draining"
        running = self._running + self._waiting
        logger.info("stopping: requests that run: %d; no new ones are taken", running)
        if self._sweeping is not None:
            self._sweeping.cancel()
        cut = await self.conversations.drain(seconds)
        if cut:
            logger.warning("requests that were not done after %g s and were cut: %d", seconds, cut)

    async def close(self) -> None:
        """Let go of the agent, the store and the log."""
        await self.conversations.close()
        if self.log is not None:
            self.log.close()

    async def reload(self) -> None:
        """Serve the checkpoint as it is on the disk now; keep the one that is served if that fails."""
        if self.reopen is None or self.condition.phase != "ready":
            logger.warning("there is nothing to load now")
            return
        try:
            opened = await asyncio.to_thread(self.reopen)
            await self.conversations.replace_agent(opened.agent)
        except Exception as error:
            # Whatever is wrong with the new one, the old one goes on; its words stay in the log.
            self.condition.last_reload = "failed: the checkpoint before it is still served"
            told = None if isinstance(error, StatesetError) else error
            logger.error("the checkpoint is not taken: %s", error, exc_info=told)  # noqa: TRY400
            return
        self.conversations.starting.greeting = self._greeting_of(opened)
        self.condition.version = opened.version
        self.condition.reloads += 1
        self.condition.last_reload = "ok"
        self._know_tools(opened.agent)
        logger.info("another checkpoint is served: step %s", opened.version)

    def _greeting_of(self, opened: Opened) -> str:
        return next(one for one in (self.greeting, opened.greeting, GREETING) if one is not None)

    @property
    def _running(self) -> int:
        return self.conversations.gate.running

    @property
    def _waiting(self) -> int:
        return self.conversations.gate.waiting

    async def _engine(self) -> str | None:
        return "no token for too long" if self.conversations.watch.stalled(STALLED_SECONDS) else None

    async def _store(self) -> str | None:
        if self.condition.phase == "loading":
            return None
        async with self._asking_store:  # one asks for all: who asks may be anybody, and as often as he likes
            asked_at, answer = self._asked_store
            if time.monotonic() - asked_at > _STORE_SECONDS:
                try:
                    await self.conversations.ping()
                except StoreFailed:
                    answer = "it cannot be written"
                else:
                    answer = None
                self._asked_store = time.monotonic(), answer
            return answer

    async def _queue(self) -> str | None:
        return "full" if self._waiting >= self.limits.max_waiting > 0 else None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.conversations.sweep()
            except StoreFailed as error:
                logger.warning("conversations could not be tidied up: %s", error)

    def _know_tools(self, agent: MultiTurnAgent) -> None:
        self.metrics.know_tools([tool.name for tool in agent.tools] if isinstance(agent, ToolAgent) else [])

    def _read_gauges(self) -> None:
        add, watch = self.metrics.gauge, self.conversations.watch
        add("grpo_serve_requests_running", "Turns and completions that are being answered", lambda: self._running)
        add("grpo_serve_requests_waiting", "Turns and completions that wait for a place", lambda: self._waiting)
        add("grpo_serve_active_conversations", "Conversations that are under way", lambda: self.conversations.active)
        add(
            "grpo_serve_policy_version",
            "Step of the served checkpoint; NaN where it does not say",
            lambda: float("nan") if self.condition.version is None else self.condition.version,
        )
        add("grpo_serve_reloads", "Checkpoints that took the place of the first one", lambda: self.condition.reloads)
        add(
            "grpo_serve_engine_last_token_age_seconds",
            "Time since the last token; 0 while there is nothing to do",
            lambda: watch.last_token_age,
        )
        add("grpo_serve_draining", "1 while the server stops", lambda: float(self.condition.phase == "draining"))
