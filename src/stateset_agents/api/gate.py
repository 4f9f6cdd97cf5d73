"""A bounded number of turns at once, and a bounded number that wait, shared out fairly among clients.

Invariant: places go round: each client that waits gets one before any gets a second, and a client's own turns get
theirs in the order in which they were asked for. Who may not even wait is told so at once, with the time after which it
is worth asking again. A queue that one client fills is not full for another: the last turn of the longest line is
refused for the first of a shorter one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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
    """

    def __init__(self, places: int, waiting: int) -> None:
        self.running = 0
        self._places, self._queue = places, waiting
        self._free = places
        self._held_up = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._seconds = 1.0

    @asynccontextmanager
    async def place(self, client: str = "") -> AsyncIterator[None]:
        """A place, for as long as the block runs.

        Args:
            client: who asks.

        Raises:
            QueueFull: too many wait already.
        """
        if self._free:
            self._free -= 1
        else:
            await self._stand_in_line(client)
        self.running += 1
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self.running -= 1
            self._pass_on()

    @asynccontextmanager
    async def wait(self, client: str = "") -> AsyncIterator[None]:
        """Count as one that waits, for as long as the block runs.

        Args:
            client: who waits.

        Raises:
            QueueFull: too many do.
        """
        self._make_room(client)
        self._held_up += 1
        try:
            yield
        finally:
            self._held_up -= 1

    @property
    def waiting(self) -> int:
        """Who waits, for a place or for something else that holds up a turn."""
        return self._held_up + sum(map(len, self._lines.values()))

    @property
    def expected_wait(self) -> float:
        """Whole seconds in which the turns that wait should have got a place, by what the last ones took."""
        return min(LONGEST_WAIT, max(1.0, math.ceil(self._seconds * (self.waiting + 1) / self._places)))

    async def _stand_in_line(self, client: str) -> None:
        self._make_room(client)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._pass_on()  # it was given to a turn that left at that very moment
            raise
        finally:
            line = self._lines.get(client, deque())
            with suppress(ValueError):
                line.remove(place)
            if not line:
                self._lines.pop(client, None)

    def _pass_on(self) -> None:
        """Give a place that is free to the client whose turn it is, and leave it free if nobody waits."""
        for client, line in [*self._lines.items()]:
            self._lines.move_to_end(client)
            while line:
                place = line.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._free += 1

    def _make_room(self, client: str) -> None:
        """Let there be room for one more of this client.

        Raises:
            QueueFull: no client has more in line than this one would have.
        """
        if self.waiting < self._queue:
            return
        refused = QueueFull("the server has as many turns waiting as it may have", retry_after=self.expected_wait)
        longest = max(self._lines.values(), key=len, default=deque[asyncio.Future[None]]())
        if len(longest) <= len(self._lines.get(client, ())) + 1:
            raise refused
        last = longest.pop()
        if not last.done():
            last.set_exception(refused)
