"""Waiting for what must not be left half done.

Invariant: what is waited for here is over when these return or raise, however often the caller is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def finished(work: Awaitable[Result]) -> Result:
    """The result of `work`; a caller that was cancelled meanwhile hears of that once the work is over."""
    future = asyncio.ensure_future(work)
    cancelled = await _over(future)
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # seen: the cancellation is what the caller hears of
        raise cancelled
    return future.result()


async def kept(work: Awaitable[Result]) -> Result:
    """The result of `work`, even for a caller that was cancelled meanwhile: what is done counts."""
    future = asyncio.ensure_future(work)
    await _over(future)
    return future.result()


async def _over(future: asyncio.Future[Result]) -> asyncio.CancelledError | None:
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
