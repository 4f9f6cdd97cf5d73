"""Tries that are used up: what is told, and when."""

import asyncio
import random
import time

import pytest

from stateset_agents.engines.answers import Transient
from stateset_agents.engines.retrying import Tries, persistently


async def test_a_process_that_slept_past_the_end_tells_what_the_server_said_and_asks_no_more(monkeypatch):
    """Mutation: it is asked again with less than no seconds left, and is said not to have answered in these."""
    asked, sleep = [], asyncio.sleep

    async def asks():
        asked.append(time.monotonic())
        raise Transient("the server answered 503")

    async def oversleeps(seconds):
        await sleep(0)
        time.sleep(seconds + 0.5)  # noqa: ASYNC251 - the whole process sleeps

    monkeypatch.setattr(asyncio, "sleep", oversleeps)
    with pytest.raises(Transient, match=r"^the server answered 503 \(tried once, and to wait .* of 0\.4 s\)$"):
        await persistently(asks, Tries(seconds=60.0, retries=4, total_seconds=0.4, first_wait=0.1), random.Random(1))
    assert len(asked) == 1
