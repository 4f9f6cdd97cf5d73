"""When a chat model over HTTP is told to be down, and to be back; the breaker's clock is set by hand."""

import asyncio
import contextlib

import pytest

from chat_calls import ask, failure
from endpoint_server import BROKEN, BUSY, Reply, says, script
from stateset_agents.core.standstill import here
from stateset_agents.engines.breaker import Breaker, BreakerState
from stateset_agents.engines.chat_model import ChatFailed
from stateset_agents.engines.endpoint import Endpoint


def endpoint(server, clock=lambda: 0.0, **more):
    breaker = Breaker(window=4, min_calls=2, cool_down=60.0, clock=clock)
    return Endpoint(server.base_url, "judge", retries=0, breaker=breaker, **more)


async def broken_and_cooled_down(server, told, **more):
    """An endpoint whose next call is the probe; `told` gets whether the outage is over, each time it is told."""
    now = 0.0
    model = endpoint(server, lambda: now, **more)
    with here().heard_by(lambda outage: told.append(outage.over)):
        for _ in range(2):
            await failure(model)
    now = 60.0
    assert (model.breaker.state, told) == (BreakerState.HALF_OPEN, [False])
    return model


@pytest.mark.parametrize("reply", [BUSY, Reply(400), says(""), "Hi"], ids=["busy", "refused", "empty", "answered"])
async def test_an_outage_is_over_with_the_first_answer_that_is_no_failure(endpoint_server, reply):
    told = []
    model = await broken_and_cooled_down(endpoint_server(script(BROKEN, BROKEN, reply)), told)
    with here().heard_by(lambda outage: told.append(outage.over)), contextlib.suppress(ChatFailed):
        await ask(model)
    assert (model.breaker.state, told) == (BreakerState.CLOSED, [False, True])


async def test_a_busy_answer_to_an_old_call_ends_no_outage(endpoint_server):
    told = []
    server = endpoint_server(script(Reply(429, delay=0.5), BROKEN))
    model = endpoint(server)
    with here().heard_by(lambda outage: told.append(outage.over)):
        old = asyncio.create_task(failure(model))
        while not server.count:  # noqa: ASYNC110 - it is a server in another thread
            await asyncio.sleep(0.01)
        for _ in range(2):
            await failure(model)
        assert "429" in await old
    assert (model.breaker.state, told) == (BreakerState.OPEN, [False])


async def test_a_call_that_could_not_be_sent_says_nothing_about_the_service(endpoint_server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-1")
    told = []
    server = endpoint_server(script(BROKEN))
    model = await broken_and_cooled_down(server, told, api_key_env="JUDGE_KEY")
    monkeypatch.delenv("JUDGE_KEY")
    with here().heard_by(lambda outage: told.append(outage.over)):
        assert "JUDGE_KEY (api_key_env) is not set" in await failure(model)
    assert (server.count, model.breaker.state, told) == (2, BreakerState.HALF_OPEN, [False])
