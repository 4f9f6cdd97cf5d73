"""Seconds that conversations waited, on a clock that is set by hand."""

import asyncio

import pytest

from stateset_agents.core.busy import Busy, during, measured


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_second_counts_once_however_many_conversations_wait_in_it():
    """Mutation: each interval added by itself, which gives 9."""
    clock = Clock()
    busy = Busy(clock)
    with busy.during("generate"):
        clock.now = 2.0
        with busy.during("generate"):
            clock.now = 5.0
            with busy.during("reward"):
                clock.now = 6.0
    clock.now = 100.0
    with busy.during("generate"):
        clock.now = 101.5
    assert busy.seconds == {"generate": 7.5, "environment": 0.0, "reward": 1.0}


def test_what_fails_is_counted_and_closed():
    clock = Clock()
    busy = Busy(clock)

    def fail():
        with busy.during("environment"):
            clock.now = 3.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    clock.now = 9.0
    assert busy.seconds["environment"] == 3.0


async def test_tasks_are_measured_by_whoever_made_them_and_by_nobody_else():
    async def wait(work):
        with during(work):
            await asyncio.sleep(0.05)

    with measured() as busy:
        tasks = [asyncio.create_task(wait("generate")) for _ in range(3)]
        await asyncio.gather(*tasks, wait("reward"))
    await wait("environment")
    assert 0.04 < busy.seconds["generate"] < 0.14  # three times 0.05 is 0.15
    assert busy.seconds["reward"] > 0.04
    assert busy.seconds["environment"] == 0.0
