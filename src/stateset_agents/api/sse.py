"""Server-sent events: a response that comes in pieces.

Invariant: a stream that has begun always ends: with its last event, with an `error` event, or because its client left.
Its source is closed whichever it was, in the task that ran it, so that cancelling reaches what it waits for. Where its
first event takes long its headers and a comment go before it; what is refused at once has a status all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 15.0
"""Proxies close connections that are silent for longer than about half a minute."""

PATIENCE_SECONDS = 1.0
"""For which a stream's headers wait for its first piece, or for the status of a refusal."""

_AT_ONCE = 0.05
"""In seconds. Some proxies keep the headers until there is something of the body."""

_HEARTBEAT = b": keep-alive\n\n"

Piece = TypeVar("Piece")


async def soon(source: AsyncGenerator[Piece, None], seconds: float = PATIENCE_SECONDS) -> AsyncGenerator[Piece, None]:
    """The same pieces, after a moment in which the first one may come.

    Raises:
        Exception: what `source` raises in that moment.
    """
    first = asyncio.ensure_future(anext(source))
    try:
        await asyncio.wait([first], timeout=seconds)
        if first.done():
            first.result()
    except BaseException:
        await _closed(first, source)
        raise
    return _all(first, source)


async def _all(first: asyncio.Future[Piece], source: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    try:
        yield await first
        async for piece in source:
            yield piece
    finally:
        await _closed(first, source)


async def _closed(first: asyncio.Future[Piece], source: AsyncGenerator[Piece, None]) -> None:
    first.cancel()
    await asyncio.wait([first])
    if not first.cancelled():
        first.exception()  # seen
    await source.aclose()


def event(data: Mapping[str, Any] | str, name: str | None = None) -> bytes:
    """One event. JSON has no line breaks of its own, so that `data` is one line."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode("utf-8", "backslashreplace")


class EventStream(Response):
    """A response whose body is the events of a source.

    Args:
        source: gives events as bytes; it turns its own errors into events.
        heartbeat: seconds of silence after which a comment is sent.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None], *, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Type": "text/event-stream"}
        )
        del self.headers["content-length"]
        self._source = source
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(_never_silent(self._source, self._heartbeat)) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _never_silent(source: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    """The source's parts, and a comment wherever it is silent. One task runs the source from its start to its end."""
    parts: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async with contextlib.aclosing(source):
                async for part in source:
                    parts.put_nowait(part)
        finally:
            parts.put_nowait(None)

    task = asyncio.create_task(pump())
    silence = min(_AT_ONCE, seconds)
    try:
        while True:
            try:
                async with asyncio.timeout(silence):
                    part = await parts.get()
            except TimeoutError:
                part = _HEARTBEAT
            silence = seconds
            if part is None:
                break
            yield part
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
