"""Asking a run to stop, from a signal or from a callback.

Invariant: what is awaited under a request is either done or given up to its end; nothing of it goes on behind the run.
What computes without awaiting anything sees `asked_at`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StopRequested(Exception):
    """Somebody asked the run to stop; it is between two steps."""


class StopRequest:
    """Whether a run was asked to stop.

    Attributes:
        asked_at: when, by `time.monotonic`; None: it was not.
    """

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._wakers: list[Callable[[], object]] = []

    def ask(self) -> None:
        """Ask, from anywhere: a signal's handler or another thread too. What `unless_asked` awaits is given up."""
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        for wake in tuple(self._wakers):
            wake()

    async def unless_asked(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, or give it up when the run is asked to stop.

        Raises:
            StopRequested: the run was asked to stop, before or meanwhile.
            Exception: what `work` raises.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.Event()
        wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, asked.set)
        self._wakers.append(wake)
        if self.asked_at is not None:
            asked.set()
        stop = asyncio.ensure_future(asked.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wakers.remove(wake)
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self.asked_at is not None:
            await asyncio.gather(task, return_exceptions=True)
            raise StopRequested
        return task.result()
