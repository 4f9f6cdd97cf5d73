"""Asking a run to stop, from wherever that is."""

import asyncio
import threading

import pytest

from stateset_agents.training.stop_request import StopRequest, StopRequested


async def test_everything_that_is_awaited_under_a_request_is_given_up_by_it():
    """From another thread; an evaluation beside a run, of which the one may end before. Mutation: one waker for all."""
    stop = StopRequest()
    first = asyncio.create_task(stop.unless_asked(asyncio.sleep(0, "done")))
    others = [asyncio.create_task(stop.unless_asked(asyncio.sleep(60))) for _ in range(2)]
    assert await first == "done"
    thread = threading.Thread(target=stop.ask)
    thread.start()
    for other in others:
        with pytest.raises(StopRequested):
            await asyncio.wait_for(other, 10)
    thread.join()


async def test_a_request_that_came_before_is_not_forgotten():
    stop = StopRequest()
    stop.ask()
    asked = stop.asked_at
    stop.ask()
    assert stop.asked_at == asked
    with pytest.raises(StopRequested):
        await stop.unless_asked(asyncio.sleep(60))
