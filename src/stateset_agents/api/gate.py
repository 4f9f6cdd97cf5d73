"""A bounded number of turns at once, and a bounded number that wait.

Invariant: places go out in the order in which they were asked for; who may not even wait is told so at once, with the
time after which it is worth asking again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import QueueFull

LONGEST_WAIT = 60.0
"""Nobody is told to come back later than this, in seconds."""


class Gate:
    """Places for turns.

    Args:
        places: turns at once.
        waiting: turns that may wait for one.

    Attributes:
        running: places that are taken.
        waiting: who waits, for a place or for something else that holds up a turn.
    """

    def __init__(self, places: int, waiting: int) -> None:
        self.running = 0
        self.waiting = 0
        self._places, self._queue = places, waiting
        self._free = asyncio.Semaphore(places)
        self._seconds = 1.0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, for as long as the block runs.

        Raises:
            QueueFull: too many wait already.
        """
        if self._free.locked():
            async with self.wait():
                await self._free.acquire()
        else:
            await self._free.acquire()
        self.running += 1
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self.running -= 1
            self._free.release()

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """Count as one that waits, for as long as the block runs.

        Raises:
            QueueFull: too many do.
        """
        if self.waiting >= self._queue:
            raise QueueFull("the server has as many turns waiting as it may have", retry_after=self.expected_wait)
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @property
    def expected_wait(self) -> float:
        """Whole seconds in which the turns that wait should have got a place, by what the last ones took."""
        return min(LONGEST_WAIT, max(1.0, math.ceil(self._seconds * (self.waiting + 1) / self._places)))
