"""A run that stands still because a service is down, and limits of seconds that stand still with it.

Invariant: the time that a run waits for a service counts for nobody: while anyone waits, no limit of seconds that was
set here runs out, of whoever else, since all of them may be waiting for the same. Whoever listens is told at once that
a service is down and that it is back, and while it is waited for every few seconds, so that nobody takes the run for
dead.

One for each event loop.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

TICK_SECONDS = 5.0


@dataclass(frozen=True)
class Outage:
    """A service that is down, or was.

    Attributes:
        service: what is down, as a message calls it.
        reason: what it answers, or does not.
        seconds: since it was last known to work.
        waited_for: whether the run stands still until it is back.
        over: whether it is back.
    """

    service: str
    reason: str
    seconds: float = 0.0
    waited_for: bool = False
    over: bool = False


Listener = Callable[[Outage], None]


class Standstill:
    """See the module; get the running loop's by `here`."""

    def __init__(self) -> None:
        self._limits: set[TimeLimit] = set()
        self._waiting = 0
        self._down: dict[str, tuple[float, Outage]] = {}
        self._listeners: list[Listener] = []
        self._ticking: asyncio.Task[None] | None = None

    @property
    def still(self) -> bool:
        """Whether anybody waits."""
        return self._waiting > 0

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Within this block the listener is told of outages."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def down(self, service: str, reason: str, *, waited_for: bool = False) -> None:
        """A service is down; saying it again is no news."""
        if service not in self._down or (waited_for and not self._down[service][1].waited_for):
            since = self._down[service][0] if service in self._down else time.monotonic()
            self._down[service] = since, Outage(service, reason, waited_for=waited_for)
            self._tell(service)

    def up(self, service: str) -> None:
        """A service works; news only if it did not."""
        if service in self._down:
            self._tell(service, over=True)
            del self._down[service]

    @asynccontextmanager
    async def waiting(self, service: str, reason: str) -> AsyncIterator[None]:
        """Within this block the run waits for a service."""
        self._waiting += 1
        self.down(service, reason, waited_for=True)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        for limit in list(self._limits):
            limit.stand()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._ticking.cancel()
                self._ticking = None
                for limit in list(self._limits):
                    limit.go_on()

    def join(self, limit: TimeLimit) -> None:
        """Have a limit stand still with the others."""
        self._limits.add(limit)
        if self.still:
            limit.stand()

    def leave(self, limit: TimeLimit) -> None:
        """The limit's block is over."""
        self._limits.discard(limit)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for service, (_, outage) in list(self._down.items()):
                if outage.waited_for:
                    self._tell(service)

    def _tell(self, service: str, *, over: bool = False) -> None:
        since, outage = self._down[service]
        for listener in list(self._listeners):
            listener(replace(outage, seconds=time.monotonic() - since, over=over))


_BY_LOOP: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Standstill] = weakref.WeakKeyDictionary()


def here() -> Standstill:
    """The running event loop's."""
    return _BY_LOOP.setdefault(asyncio.get_running_loop(), Standstill())


class TimeLimit:
    """`asyncio.timeout`, less the time in which the run stands still.

    Args:
        seconds: None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)
        self._begun = time.monotonic()
        self._left: float | None = None
        self._stood = False

    @property
    def overdue(self) -> bool:
        """Whether the time is over, whether or not anything could be ended by that."""
        return self._seconds is not None and not self._stood and time.monotonic() - self._begun > self._seconds

    def expired(self) -> bool:
        """Whether the block was ended by the limit."""
        return self._timeout.expired()

    def stand(self) -> None:
        """Stop the clock."""
        when = self._timeout.when()
        self._stood = True
        if when is not None and not self.expired():
            self._left = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    def go_on(self) -> None:
        """Let it run again."""
        if self._left is not None and not self.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None

    async def __aenter__(self) -> Self:
        self._begun = time.monotonic()
        await self._timeout.__aenter__()
        here().join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        here().leave(self)
        await self._timeout.__aexit__(kind, error, trace)
