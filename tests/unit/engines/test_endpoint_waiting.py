"""An endpoint with `when_down: wait`: what a service that is down costs is time, and no call."""

import asyncio
import threading
import time

import pytest

from endpoint_server import BROKEN, HANG, Reply, says
from stateset_agents.core.errors import ConfigError, ServiceDown
from stateset_agents.core.standstill import here
from stateset_agents.engines.breaker import Breaker
from stateset_agents.engines.chat_model import ChatFailed
from stateset_agents.engines.endpoint import Endpoint


def endpoint(server, **more):
    breaker = Breaker(window=4, min_calls=2, cool_down=0.2)
    given = {"first_wait": 0.01, "retries": 0, "when_down": "wait", "patience": 30.0, "breaker": breaker, **more}
    return Endpoint(server.base_url, "judge", **given)


async def ask(model, text="Hi"):
    return await model.complete([{"role": "user", "content": text}], key=text, temperature=0.0, max_tokens=7)


@pytest.mark.parametrize("fault", [BROKEN, Reply(429, {}), HANG], ids=["500", "429", "hang"])
async def test_no_call_is_lost_to_an_outage_and_everybody_stands_still_meanwhile(endpoint_server, fault, caplog):
    over = threading.Event()

    def answer(_, body):
        return fault if not over.is_set() else body["messages"][0]["content"]

    server = endpoint_server(answer)
    model = endpoint(server, seconds=0.3 if fault is HANG else 30, concurrency=4)
    asked = [asyncio.create_task(ask(model, f"{number}")) for number in range(8)]
    while not here().still:  # noqa: ASYNC110 - it is a server in another thread
        await asyncio.sleep(0.01)
    assert not all(task.done() for task in asked)
    over.set()
    assert await asyncio.gather(*asked) == [f"{number}" for number in range(8)]
    assert not here().still
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said[0].endswith("The run waits until it is back, 30 s at most")
    assert said[-1] == f"judge at {server.base_url} answers again, and the run goes on"


async def test_a_service_that_is_down_for_longer_than_it_may_stops_the_run_and_the_next_run_may_wait_again(
    endpoint_server,
):
    server = endpoint_server(lambda number, body: BROKEN)
    model = endpoint(server, patience=0.5)
    for _ in range(2):
        begun = time.monotonic()
        with pytest.raises(ServiceDown, match=r"judge at http.*\n  it was waited for, 0.5 s \(patience\)") as stopped:
            await ask(model)
        assert stopped.value.exit_code == 75
        assert 0.5 <= time.monotonic() - begun < 5


async def test_a_service_that_is_merely_busy_once_it_is_back_is_waited_for_until_it_answers(endpoint_server):
    """Its patience is not begun anew by each 429, nor is it told to be back."""
    server = endpoint_server(lambda number, body: BROKEN if number < 2 else Reply(429) if number < 4 else "Hi")
    told = []
    with here().heard_by(lambda outage: told.append((outage.over, server.count))):
        assert await ask(endpoint(server)) == "Hi"
    assert (told[0], told[-1]) == ((False, 1), (True, 5))
    assert [over for over, _ in told].count(True) == 1


async def test_a_time_that_a_busy_service_names_is_waited_for(endpoint_server):
    server = endpoint_server(lambda number, body: "Hi" if number else Reply(429, {}, {"retry-after": "1"}))
    begun = time.monotonic()
    assert await ask(endpoint(server, total_seconds=0.5)) == "Hi"
    assert time.monotonic() - begun >= 1
    assert server.count == 2


@pytest.mark.parametrize("reply", [Reply(401), says("")], ids=["refused", "empty"])
async def test_what_would_be_answered_alike_again_is_not_waited_for(endpoint_server, reply):
    server = endpoint_server(lambda number, body: BROKEN if number == 0 else reply)
    with pytest.raises(ChatFailed):
        await ask(endpoint(server))
    assert server.count == 2


async def test_a_question_that_fails_while_others_are_answered_is_given_up(endpoint_server):
    server = endpoint_server(lambda number, body: BROKEN if body["messages"][0]["content"] == "poison" else "Hi")
    model = endpoint(server, breaker=Breaker(window=1000, min_calls=1000))
    poison = asyncio.create_task(ask(model, "poison"))
    while not poison.done():
        assert await ask(model) == "Hi"
    with pytest.raises(ChatFailed, match="answered 500"):
        await poison


async def test_a_wait_ends_at_once_when_it_is_cancelled(endpoint_server):
    server = endpoint_server(lambda number, body: Reply(429, {}, {"retry-after": "60"}))
    asked = asyncio.create_task(ask(endpoint(server, total_seconds=1.0, patience=600.0)))
    while not here().still:  # noqa: ASYNC110 - it is short
        await asyncio.sleep(0.01)
    asked.cancel()
    begun = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert time.monotonic() - begun < 1
    assert not here().still


def test_what_is_done_about_an_outage_is_one_of_two_things_and_survives_a_config():
    with pytest.raises(ConfigError, match="when_down is 'retry'; it must be one of skip, wait"):
        Endpoint("http://127.0.0.1:9/v1", "judge", when_down="retry")
    for given in ({}, {"when_down": "wait"}, {"when_down": "wait", "patience": 60.0}, {"patience": 60.0}):
        model = Endpoint("http://127.0.0.1:9/v1", "judge", **given)
        assert given.items() <= model.to_config().items()
        again = Endpoint(**model.to_config())
        assert (again.when_down, again.patience) == (model.when_down, model.patience)
    assert Endpoint("http://127.0.0.1:9/v1", "judge", when_down="wait").patience == 3600
