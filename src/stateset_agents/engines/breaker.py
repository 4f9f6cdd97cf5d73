"""A circuit breaker: a service that keeps failing is left alone for a while.

Invariant: it opens only on a rate of failures among enough finished calls, and closes only when a single probe was
answered. A call ends as a success, as a failure, as answered with something else than what was asked for (that it is
wrong, or comes too soon), or as none of these (it was cancelled, or never sent). Answered moves nothing but the probe,
none moves nothing. A call that was admitted before the state last changed moves nothing either: how it ends says
nothing about the service as it is.

For one event loop: there is no lock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from functools import partial
from types import TracebackType


class BreakerState(StrEnum):
    """Whether calls are let through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half_open"
    """One at a time: the probe."""


class _End(Enum):
    """How a call ended."""

    SUCCEEDED = auto()
    FAILED = auto()
    ANSWERED = auto()
    NONE = auto()


class BreakerOpen(Exception):
    """The call was not let through.

    Attributes:
        seconds: until a probe may be tried; 0 while one is under way.
    """

    def __init__(self, seconds: float) -> None:
        until = f"for {seconds:.1f} s more" if seconds else "but for the call that tries whether it is back"
        super().__init__(f"it keeps failing and is left alone, {until}")
        self.seconds = seconds


class Breaker:
    """Lets calls through, or not.

    Args:
        window: finished calls that the rate is taken over.
        failure_rate: share of failures among them at which it opens.
        min_calls: finished calls without which there is no rate.
        cool_down: seconds that it stays open before a probe.
        clock: seconds, from any start.

    Raises:
        ValueError: a rate outside (0, 1], or fewer calls in the window than are needed.
    """

    def __init__(
        self,
        *,
        window: int = 20,
        failure_rate: float = 0.5,
        min_calls: int = 10,
        cool_down: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < failure_rate <= 1 or not 1 <= min_calls <= window:
            raise ValueError(f"no rate of {failure_rate:g} over {min_calls} to {window} calls can open a breaker")
        self._rate, self._min_calls, self._cool_down, self._clock = failure_rate, min_calls, cool_down, clock
        self._failures: deque[bool] = deque(maxlen=window)
        self._opened: float | None = None
        self._probing = False
        self._era = 0
        self.openings = 0
        """How often it has opened, failed probes included."""

    @property
    def state(self) -> BreakerState:
        """What it does with a call that comes at this moment."""
        if self._opened is None:
            return BreakerState.CLOSED
        cooled = self._clock() - self._opened >= self._cool_down
        return BreakerState.HALF_OPEN if cooled else BreakerState.OPEN

    def admit(self) -> Admission:
        """Let a call through; say how it ended inside `with`.

        Raises:
            BreakerOpen: it must not be made.
        """
        if self._opened is not None:
            left = self._opened + self._cool_down - self._clock()
            if left > 0 or self._probing:
                raise BreakerOpen(max(0.0, left))
            self._probing = True
        return Admission(partial(self._finish, self._era))

    def _finish(self, era: int, end: _End) -> None:
        if era != self._era:
            return
        if self._opened is not None:  # the probe
            self._probing = False
            if end is not _End.NONE:
                self._turn(self._clock() if end is _End.FAILED else None)
        elif end in (_End.SUCCEEDED, _End.FAILED):
            self._failures.append(end is _End.FAILED)
            enough = len(self._failures) >= self._min_calls
            if end is _End.FAILED and enough and sum(self._failures) >= self._rate * len(self._failures):
                self._turn(self._clock())

    def _turn(self, opened: float | None) -> None:
        self._opened = opened
        self._failures.clear()
        self._era += 1
        self.openings += opened is not None


class Admission:
    """One call that was let through. It ends with the `with`: as none, unless told otherwise."""

    def __init__(self, finish: Callable[[_End], None]) -> None:
        self._finish = finish
        self._end = _End.NONE

    def succeeded(self) -> None:
        """The service did what it was asked to."""
        self._end = _End.SUCCEEDED

    def failed(self) -> None:
        """The service did not."""
        self._end = _End.FAILED

    def answered(self) -> None:
        """The service is there, and did something else than it was asked to: through no fault of its own."""
        self._end = _End.ANSWERED

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._finish(self._end)
