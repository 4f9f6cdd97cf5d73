"""What an engine is doing, from outside.

Invariant: watching changes no reply. Every token is seen as it comes, whether its reply is streamed or not, so that an
engine that has stopped is told from one that has much to do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Protocol

from ..agents import Agent, MultiTurnAgent
from ..engines.base import Engine, GeneratedToken, Generation, GenerationRequest
from .clock import Clock


class Observe(Protocol):
    """Hears of every measured value; the metrics of a server are made from this.

    The names are `time_to_first_token` and `time_per_output_token` (seconds), `prompt_tokens`, `generation_tokens`,
    `turn` (seconds; label `outcome`: "done", "cancelled" or an error's slug), `tool_call` (seconds; labels `tool`,
    `outcome`), `eviction` (conversations; label `reason`) and `store` (seconds; label `op`).
    """

    def __call__(self, name: str, value: float, /, **labels: str) -> None:
        """Take one value."""
        ...


def ignore(name: str, value: float, /, **labels: str) -> None:
    """Observe nothing."""


class EngineWatch:
    """Counts what engines do. One watch goes with a service, however often its agent is replaced.

    Args:
        clock: for times.
        observe: hears of every reply.

    Attributes:
        running: replies whose first token is there.
        waiting: replies whose first token is not.
        prompt_tokens, generation_tokens: sums over all replies.
    """

    def __init__(self, clock: Clock | None = None, observe: Observe = ignore) -> None:
        self._clock = clock or Clock()
        self._observe = observe
        self.running = 0
        self.waiting = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self._progress = self._clock.monotonic()
        self._starved = 0.0  # of time without a token, when the last reply ended: a hanging engine's turns are cut

    def attach(self, agent: Agent) -> None:
        """Watch the engine of an agent that is initialized; one without an engine has nothing to watch."""
        if isinstance(agent, MultiTurnAgent) and not isinstance(agent.runtime.engine, _Watched):
            agent.runtime.engine = _Watched(agent.runtime.engine, self)

    @property
    def last_token_age(self) -> float:
        """Seconds since the last token; 0 while there is nothing to do."""
        return self._clock.monotonic() - self._progress if self.running + self.waiting else 0.0

    def stalled(self, seconds: float) -> bool:
        """Whether there is work, and no token came of it for so long."""
        return self.last_token_age > seconds

    async def follow(
        self, request: GenerationRequest, stream: Callable[[GenerationRequest], AsyncIterator[GeneratedToken]]
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Pass on the tokens of a reply, and count them."""
        begun, tokens = self._clock.monotonic(), 0
        first = begun
        if not self.running + self.waiting:
            self._progress = begun - self._starved
        self.waiting += 1
        self.prompt_tokens += len(request.prompt_ids)
        self._observe("prompt_tokens", len(request.prompt_ids))
        pieces = stream(request)
        try:
            async for token in pieces:
                self._progress = self._clock.monotonic()
                if not tokens:
                    first = self._progress
                    self._observe("time_to_first_token", first - begun)
                    self.waiting -= 1
                    self.running += 1
                tokens += 1
                yield token
        finally:
            self._starved = self.last_token_age
            if tokens:
                self.running -= 1
            else:
                self.waiting -= 1
            self.generation_tokens += tokens
            self._observe("generation_tokens", tokens)
            if tokens > 1:
                self._observe("time_per_output_token", (self._progress - first) / (tokens - 1))
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()


class _Watched:
    """An engine under watch."""

    def __init__(self, engine: Engine, watch: EngineWatch) -> None:
        self.inner = engine
        self._watch = watch

    @property
    def version(self) -> int:
        return self.inner.version

    @version.setter
    def version(self, version: int) -> None:
        self.inner.version = version

    async def generate(self, request: GenerationRequest) -> Generation:
        final = None
        async with aclosing(self.stream(request)) as tokens:
            async for token in tokens:
                final = token.final
        if final is None:
            raise RuntimeError("the engine's stream ended without a last token")
        return final

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GeneratedToken, None]:
        return self._watch.follow(request, self.inner.stream)

    def release(self, session: str) -> None:
        self.inner.release(session)

    async def aclose(self) -> None:
        await self.inner.aclose()
