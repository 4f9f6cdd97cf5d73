"""Connections to a real server, seen from outside: as the sockets that this process holds to it."""

import asyncio
import gc
import logging
from urllib.parse import urlsplit

import psutil
import pytest

from endpoint_server import HANG, says
from stateset_agents.engines.connections import Lines
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


async def test_a_connection_that_fails_to_close_while_its_call_is_cancelled_is_told_in_the_log_alone(caplog):
    caplog.set_level(logging.DEBUG, logger="stateset_agents")
    printed, closing = [], asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: printed.append(context["message"]))

    async def fails():
        closing.set()
        await asyncio.sleep(0.05)
        raise OSError("the socket is gone")

    async def call():
        async with Lines(1, proxied=False).line() as line:
            line.client.aclose = fails

    called = asyncio.create_task(call())
    await closing.wait()
    called.cancel()
    assert (await asyncio.wait({called}))[0].pop().cancelled()
    del called  # asyncio tells of an error that nobody has asked for when the last one who could is gone
    gc.collect()
    assert printed == []
    assert [record.levelname for record in caplog.records if "the socket is gone" in record.getMessage()] == ["DEBUG"]
