"""Asking a run to stop, from a signal or from a callback.

Invariant: what is awaited under a request is either done or given up to its end; nothing of it goes on behind the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StopRequested(Exception):
    """Somebody asked the run to stop; it is between two steps."""


class StopRequest:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask. Work that is awaited in `unless_asked` is given up."""
        self._asked.set()

    async def unless_asked(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, or give it up when the run is asked to stop.

        Raises:
            StopRequested: the run was asked to stop, before or meanwhile.
            Exception: what `work` raises.
        """
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._asked.is_set():
            await asyncio.gather(task, return_exceptions=True)
            raise StopRequested
        return task.result()
