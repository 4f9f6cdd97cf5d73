"""Places, and who waits for them."""

import asyncio

import pytest

from stateset_agents.api.errors import QueueFull
from stateset_agents.api.gate import Gate


async def test_places_go_out_in_the_order_in_which_they_were_asked_for():
    gate, order = Gate(1, 10), []

    async def take(name):
        async with gate.place():
            order.append(name)
            assert gate.running == 1
            await asyncio.sleep(0)

    await asyncio.gather(*(take(name) for name in "abcde"))
    assert order == list("abcde")
    assert (gate.running, gate.waiting) == (0, 0)


async def test_who_may_not_wait_is_refused_at_once():
    gate = Gate(1, 0)
    async with gate.place():
        with pytest.raises(QueueFull):
            async with gate.place():
                pass
    async with gate.place():
        pass


async def test_a_place_that_is_given_up_while_waiting_is_nobodys():
    gate = Gate(1, 5)
    async with gate.place():
        waiting = [asyncio.create_task(gate.place().__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        assert gate.waiting == 2
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert gate.waiting == 1
    await waiting[1]
    assert (gate.running, gate.waiting) == (1, 0)


async def test_the_time_to_come_back_grows_with_the_queue_and_has_a_bound():
    gate = Gate(2, 1000)
    assert gate.expected_wait == 1
    gate.waiting = 9
    assert gate.expected_wait == 5  # ten turns of one second, two at a time
    gate.waiting = 999
    assert gate.expected_wait == 60
