"""Places, and who waits for them."""

import asyncio
from contextlib import AsyncExitStack

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
    async with AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(gate.wait())
        assert gate.expected_wait == 5  # ten turns of one second, two at a time
        for _ in range(991):
            await stack.enter_async_context(gate.wait())
        assert gate.expected_wait == 60
    assert gate.waiting == 0


class Clients:
    """Turns of several clients at a gate with one place, which is taken until `go`."""

    def __init__(self, waiting):
        self.gate, self.order, self.refused = Gate(1, waiting), [], []
        self._hold, self._tasks = asyncio.Event(), []
        self._tasks.append(asyncio.create_task(self._take("", self._hold)))

    async def _take(self, name, hold=None):
        try:
            async with self.gate.place(name[:1]):
                self.order.append(name)
                assert self.gate.running == 1
                await (hold.wait() if hold else asyncio.sleep(0))
        except QueueFull:
            self.refused.append(name)

    async def come(self, *names):
        for name in names:
            self._tasks.append(asyncio.create_task(self._take(name)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # who is refused for them hears of it
        return self._tasks[-len(names) :]

    async def go(self):
        self._hold.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert (self.gate.running, self.gate.waiting) == (0, 0)
        return self.order[1:]


async def test_a_client_with_a_thousand_turns_in_line_holds_up_another_by_one():
    clients = Clients(waiting=2000)
    await clients.come(*(f"a{number}" for number in range(1000)))
    await clients.come("b0", "b1", "c0")
    assert (await clients.go())[:6] == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert clients.order[1:] == ["a0", "b0", "c0", "a1", "b1", *(f"a{number}" for number in range(2, 1000))]


async def test_a_queue_that_one_client_fills_has_room_for_another_until_they_are_even():
    clients = Clients(waiting=4)
    await clients.come("a0", "a1", "a2", "a3", "a4")
    assert clients.refused == ["a4"]
    await clients.come("b0")
    await clients.come("b1")
    assert clients.refused == ["a4", "a3", "a2"]  # the last ones that came
    await clients.come("b2", "a5")
    assert clients.refused == ["a4", "a3", "a2", "b2", "a5"]
    assert clients.gate.waiting == 4
    await clients.come("c0")  # two, two and none: the first of the longest makes room
    assert clients.refused[5:] == ["a1"]
    assert await clients.go() == ["a0", "b0", "c0", "b1"]


async def test_turns_that_leave_the_line_are_passed_over():
    clients = Clients(waiting=10)
    leaving = await clients.come("a0", "b0")
    await clients.come("a1", "c0")
    for task in leaving:
        task.cancel()
    assert await clients.go() == ["a1", "c0"]


async def test_a_place_that_is_given_to_who_leaves_at_that_moment_goes_to_the_next():
    gate = Gate(1, 5)
    async with gate.place("a"):
        first, second = (asyncio.create_task(gate.place(name).__aenter__()) for name in "bc")
        await asyncio.sleep(0)
    first.cancel()  # its place is its own, and it does not know yet
    await second
    assert first.cancelled()
    assert (gate.running, gate.waiting) == (1, 0)
