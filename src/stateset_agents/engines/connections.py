"""Connections to a server, for whichever event loops ask it.

Invariant: a connection lives as long as any call of its loop is under way. So calls at the same time share theirs, and
none outlives its loop: a program may run one loop after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2


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
                await line.client.aclose()
