"""What conversations are waiting for, in seconds: the model, the environment, the reward.

Invariant: a second counts once for each kind of work that at least one conversation was waiting for in it, however many
were. Conversations overlap, so the kinds of a rollout may add up to more than its seconds, or to less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Work = Literal["generate", "environment", "reward"]


class Busy:
    """Seconds by kind of work.

    Args:
        clock: never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[Work, float] = {"generate": 0.0, "environment": 0.0, "reward": 0.0}
        self._clock = clock
        self._under_way: dict[Work, int] = dict.fromkeys(self.seconds, 0)
        self._since: dict[Work, float] = {}

    @contextmanager
    def during(self, work: Work) -> Iterator[None]:
        """Around one call."""
        if not self._under_way[work]:
            self._since[work] = self._clock()
        self._under_way[work] += 1
        try:
            yield
        finally:
            self._under_way[work] -= 1
            if not self._under_way[work]:
                self.seconds[work] += self._clock() - self._since[work]


_BUSY: ContextVar[Busy | None] = ContextVar("busy", default=None)


@contextmanager
def measured() -> Iterator[Busy]:
    """Measure what is awaited inside, and in tasks that are made inside."""
    busy = Busy()
    token = _BUSY.set(busy)
    try:
        yield busy
    finally:
        _BUSY.reset(token)


@contextmanager
def during(work: Work) -> Iterator[None]:
    """Around one call; nothing is measured unless somebody asked."""
    busy = _BUSY.get()
    if busy is None:
        yield
        return
    with busy.during(work):
        yield
