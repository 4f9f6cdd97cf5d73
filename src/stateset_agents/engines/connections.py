"""Connections to a server, for whichever event loops ask it.

Invariant: a connection lives as long as any call of its loop is under way. So calls at the same time share theirs, and
none outlives its loop, also where the calls are cancelled: a program may run one loop after another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2

logger = logging.getLogger(__name__)


@dataclass
class Line:
    """What the calls of one event loop share."""

    client: httpx2.AsyncClient
    slots: asyncio.Semaphore
    calls: int = 0


class Lines:
    """A line for each event loop that has calls under way.

    Args:
        concurrency: connections, and slots, of each.
        proxied: whether the environment's proxies are used.
    """

    def __init__(self, concurrency: int, *, proxied: bool) -> None:
        self._concurrency, self._proxied = concurrency, proxied
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """The running loop's, for one call. Redirects are not followed, and time is the caller's business."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            limits = httpx2.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
            client = httpx2.AsyncClient(follow_redirects=False, timeout=None, limits=limits, trust_env=self._proxied)
            line = self._lines[loop] = Line(client, asyncio.Semaphore(self._concurrency))
        line.calls += 1
        try:
            yield line
        finally:
            line.calls -= 1
            if not line.calls:
                del self._lines[loop]
                await _closed(line.client)


async def _closed(client: httpx2.AsyncClient) -> None:
    """Close all its connections, and only then be cancelled.

    They are closed one by one, and a stop cancels twice: those that the second one found open would stay so.
    """
    closing = asyncio.ensure_future(client.aclose())
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.wait({closing})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not closing.cancelled() and (failure := closing.exception()) is not None:
            logger.debug("connections were not closed properly: %r", failure)
        raise cancelled
    closing.result()
