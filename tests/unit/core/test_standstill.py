"""While a run waits for a service, no limit of seconds runs out."""

import asyncio
import time

import pytest

from stateset_agents.core import standstill
from stateset_agents.core.standstill import TimeLimit, here


async def within(seconds, work):
    async with TimeLimit(seconds):
        return await asyncio.sleep(work, "done")


async def waits(seconds):
    async with here().waiting("judge", "it is out of order"):
        await asyncio.sleep(seconds)


async def test_a_limit_ends_what_takes_longer():
    with pytest.raises(TimeoutError):
        await within(0.02, 5)
    assert await within(0.5, 0.01) == "done"
    assert await within(None, 0.01) == "done"


async def test_limits_that_ran_and_limits_that_begin_stand_still_while_anyone_waits():
    ran = asyncio.create_task(within(0.2, 0.5))
    waiting = [asyncio.create_task(waits(0.3)), asyncio.create_task(waits(0.45))]
    await asyncio.sleep(0.05)
    assert here().still
    assert await within(0.01, 0.1) == "done"
    assert await ran == "done"  # 0.2 s, less what was waited for 0.45 s, are more than 0.5 s
    await asyncio.gather(*waiting)
    assert not here().still


async def test_afterwards_a_limit_has_the_seconds_left_that_it_had_before():
    begun = asyncio.get_running_loop().time()
    late = asyncio.create_task(within(0.3, 5))
    await waits(0.4)
    with pytest.raises(TimeoutError):
        await late
    assert 0.65 < asyncio.get_running_loop().time() - begun < 2


async def test_a_block_that_never_awaits_is_overdue_unless_the_run_stood_still():
    async with TimeLimit(0.01) as limit:
        await asyncio.sleep(0)
        assert not limit.overdue
        time.sleep(0.02)  # noqa: ASYNC251 - that is what is looked for
        assert limit.overdue
        limit.stand()
        limit.go_on()
        assert not limit.overdue


async def test_a_listener_hears_of_an_outage_once_while_it_is_waited_for_again_and_again_and_of_its_end(monkeypatch):
    monkeypatch.setattr(standstill, "TICK_SECONDS", 0.05)
    heard = []
    with here().heard_by(heard.append):
        here().down("user", "gone")
        here().down("user", "gone")
        await waits(0.18)
        here().up("judge")
        here().up("judge")
    here().up("user")
    told = [(outage.service, outage.waited_for, outage.over) for outage in heard]
    assert told[0] == ("user", False, False)
    assert told[-1] == ("judge", True, True)
    assert told[1:-1] in ([("judge", True, False)] * count for count in (2, 3, 4))


async def test_a_wait_that_is_cancelled_lets_the_limits_run_again():
    waiting = asyncio.create_task(waits(60))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(TimeoutError):
        await within(0.02, 5)
