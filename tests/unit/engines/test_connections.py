"""Connections to a real server, seen from outside: as the sockets that this process holds to it."""

import asyncio
from urllib.parse import urlsplit

import psutil
import pytest

from endpoint_server import HANG, says
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.training.stop_request import StopRequest, StopRequested

CALLS = 10


def sockets_to(server):
    port = urlsplit(server.base_url).port
    connections = psutil.Process().net_connections("tcp")
    return sum(1 for one in connections if one.raddr and one.raddr.port == port)


async def talk(model, caller):
    for call in range(2):
        said = [{"role": "user", "content": f"{caller} {call}"}]
        await model.complete(said, key="k", temperature=0.5, max_tokens=7)


async def together(model):
    """As the episodes of a step: whoever is still there when one has ended early is cancelled once more."""
    tasks = [asyncio.create_task(talk(model, caller)) for caller in range(CALLS)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(true):
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("left", [1, 3, CALLS])
def test_a_run_that_is_stopped_leaves_no_socket_open(endpoint_server, left):
    def behaviour(number, body):
        caller, call = map(int, body["messages"][0]["content"].split())
        return says("Hi", delay=0.2) if call == 0 or caller >= left else HANG

    server = endpoint_server(behaviour)

    async def stopped():
        stop = StopRequest()
        run = asyncio.create_task(stop.unless_asked(together(Endpoint(server.base_url, "user"))))
        await until(lambda: server.count == 2 * CALLS and server.in_flight == left)
        assert sockets_to(server) >= CALLS
        stop.ask()
        with pytest.raises(StopRequested):
            await run

    asyncio.run(stopped())
    assert sockets_to(server) == 0
