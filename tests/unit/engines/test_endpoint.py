"""A chat model over HTTP, before a real server on loopback that answers and misbehaves by script."""

import asyncio
import copy
import gc
import json
import logging
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chat_calls import HI, ask, failure
from endpoint_server import BROKEN, BUSY, CUT, HANG, MALFORMED, Reply, says, script
from stateset_agents.core.errors import ConfigError
from stateset_agents.engines.answers import BadAnswer, read_answer, retry_after
from stateset_agents.engines.breaker import Breaker, BreakerState
from stateset_agents.engines.chat_model import ChatFailed, ChatModel
from stateset_agents.engines.endpoint import Endpoint


def endpoint(server, **more):
    return Endpoint(server.base_url, "judge", **{"first_wait": 0.001, **more})


async def test_an_answer_is_the_servers_text_and_the_request_says_what_was_asked(endpoint_server):
    server = endpoint_server(script("Hello, you! \N{WAVING HAND SIGN}"))
    model = endpoint(server, extra_body={"top_k": 3, "max_tokens": None, "max_completion_tokens": 7})
    assert isinstance(model, ChatModel)
    assert await ask(model, [{"role": "system", "content": "Be short"}, *HI]) == "Hello, you! \N{WAVING HAND SIGN}"
    seed = server.bodies[0].pop("seed")
    assert server.bodies == [
        {
            "model": "judge",
            "messages": [{"role": "system", "content": "Be short"}, {"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "top_k": 3,
            "max_completion_tokens": 7,
        }
    ]
    assert "authorization" not in server.headers[0]
    await ask(model)
    await ask(model, key="another")
    assert server.bodies[1]["seed"] == seed
    assert 0 <= seed < 2**31
    assert server.bodies[2]["seed"] != seed


@pytest.mark.parametrize("fault", [BROKEN, Reply(503), Reply(408), Reply(409), BUSY, MALFORMED, CUT, says("")], ids=str)
async def test_what_fails_in_passing_is_tried_again(endpoint_server, fault):
    server = endpoint_server(script(fault, fault, "There you are"))
    assert await ask(endpoint(server, retries=2)) == "There you are"
    assert server.count == 3


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (BROKEN, "the server answered 500: .*out of order.* \\(tried 3 times\\)"),
        (MALFORMED, "the answer is no JSON"),
        (CUT, "RemoteProtocolError"),
        (Reply(body=b'{"choices": NaN}'), "no JSON: NaN"),
        (Reply(body=b"\xff"), "no JSON"),
        (Reply(body=b"[" * 200_000), "no JSON"),
        (Reply(body=[]), r"no choices: \[\]"),
        (Reply(body={"error": "no"}), "no choices"),
        (Reply(body={"choices": []}), "no choices"),
        (Reply(body={"choices": {"0": 1}}), "no choices"),
        (Reply(body={"choices": ["Hi"]}), "no message with content: 'Hi'"),
        (Reply(body={"choices": [{"text": "Hi"}]}), "no message with content"),
        (Reply(body={"choices": [{"message": {}}]}), "no message with content"),
        (says(None), r"content is empty \(finish_reason 'stop'\)"),
        (says(" \n"), "content is empty"),
        (says(7), "content is 7, which is no text"),
        (says([{"type": "text", "text": "Hi"}]), "which is no text"),
        (says("\ud83d"), "half of a surrogate pair"),
        (says("x" * 2000), "longer than 1000 bytes"),
        (says("Hi", headers={"content-encoding": "gzip"}), "compressed"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_answer_fails_with_its_reason_after_the_last_try(endpoint_server, reply, reason):
    server = endpoint_server(script(reply))
    model = endpoint(server, retries=2, max_bytes=1000 if "1000" in reason else 1_000_000)
    with pytest.raises(ChatFailed, match=f"judge at {server.base_url}: .*{reason}"):
        await ask(model)
    assert server.count == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 201])
async def test_what_would_fail_again_is_asked_once(endpoint_server, status):
    server = endpoint_server(script(Reply(status, {"error": {"message": "no such\nmodel"}})))
    assert f'the server answered {status}: {{"error": {{"message": "no such\\nmodel"}}}}' in await failure(
        endpoint(server)
    )
    assert server.count == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(endpoint_server, status):
    other = endpoint_server(script("I have your key"))
    to = {"location": f"{other.base_url}/chat/completions"}
    assert "a redirect, which is not followed" in await failure(
        endpoint(endpoint_server(script(Reply(status, b"", to))))
    )
    assert other.count == 0


async def test_no_one_there_is_a_failure_that_is_tried_again(endpoint_server):
    server = endpoint_server(script("Hi"))
    server.__exit__()
    begun = time.monotonic()
    text = await failure(endpoint(server, retries=2, first_wait=0.1))
    assert "ConnectError" in text
    assert "tried 3 times" in text
    assert time.monotonic() - begun >= 0.05 + 0.1  # half of 0.1 and of 0.2 s are certain


@pytest.mark.parametrize("slow", [HANG, says("x" * 5000, pause=0.005)], ids=["hangs", "drips"])
async def test_a_request_may_take_so_many_seconds_however_it_spends_them(endpoint_server, slow):
    server = endpoint_server(script(slow, "Better"))
    begun = time.monotonic()
    assert await ask(endpoint(server, seconds=0.3)) == "Better"
    assert 0.3 <= time.monotonic() - begun < 5
    assert "no answer in 0.3 s (tried once)" in await failure(
        endpoint(endpoint_server(script(slow)), seconds=0.3, retries=0)
    )


async def test_a_call_with_all_its_tries_has_a_total_of_seconds(endpoint_server):
    server = endpoint_server(script(HANG))
    begun = time.monotonic()
    # 0.5 + 0.5 + 0.3 s of tries: the third is cut by the total, and no time is left for a fourth.
    await failure(endpoint(server, seconds=0.5, total_seconds=1.3, retries=9))
    assert 1.29 <= time.monotonic() - begun < 5
    assert server.count == 3
    begun = time.monotonic()
    await failure(endpoint(server, seconds=30.0, total_seconds=0.3))
    assert 0.29 <= time.monotonic() - begun < 10


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_server_that_names_a_time_is_left_alone_until_then(endpoint_server, form):
    wait = "1.2" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2.5), usegmt=True)
    server = endpoint_server(script(Reply(429, headers={"retry-after": wait}), "Thank you"))
    begun = time.monotonic()
    assert await ask(endpoint(server)) == "Thank you"
    assert time.monotonic() - begun >= 1.2  # a date has whole seconds


async def test_a_time_that_is_too_far_off_is_not_waited_for(endpoint_server):
    server = endpoint_server(script(Reply(429, b"later", {"retry-after": "3600"})))
    begun = time.monotonic()
    text = await failure(endpoint(server, total_seconds=20))
    assert "to wait 3.6e+03 s is more than is left of 20 s" in text
    assert time.monotonic() - begun < 10
    assert server.count == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("0", 0.0), (" 7 ", 7.0), ("1.5", 1.5), ("-3", None), ("soon", None), ("", None), (".", None)],
)
def test_a_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after(value) == seconds
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("9" * 400) == float("inf")


async def test_so_many_requests_are_in_flight_at_once(endpoint_server):
    server = endpoint_server(script(says("Hi", delay=0.05)))
    model = endpoint(server, concurrency=3)
    assert await asyncio.gather(*(ask(model) for _ in range(9))) == ["Hi"] * 9
    assert server.most_in_flight == 3

    # Eight calls of 0.3 s one after another: whoever waits for a slot does not use up the two seconds that it has.
    model = endpoint(endpoint_server(script(says("Hi", delay=0.3))), concurrency=1, seconds=2.0, retries=0)
    assert await asyncio.gather(*(ask(model) for _ in range(8))) == ["Hi"] * 8


def test_an_endpoint_serves_one_event_loop_after_another_and_leaves_nothing_open(endpoint_server):
    server = endpoint_server(script("Hi"))
    model = endpoint(server)
    assert [asyncio.run(ask(model)) for _ in range(2)] == ["Hi", "Hi"]
    assert len(model._lines) == 0
    gc.collect()  # a connection left open would warn here, and a warning is an error


async def test_a_call_that_is_cancelled_gives_its_slot_back(endpoint_server):
    server = endpoint_server(script(HANG, "Hi"))
    model = endpoint(server, concurrency=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(model), 0.2)
    assert await ask(model) == "Hi"


def breaker(clock=time.monotonic):
    return Breaker(window=4, min_calls=2, cool_down=60.0, clock=clock)


async def test_after_calls_that_failed_the_service_is_left_alone_and_then_probed(endpoint_server, caplog):
    now = 0.0
    server = endpoint_server(script(*[BROKEN] * 6, "Back again"))
    model = endpoint(server, retries=2, breaker=breaker(lambda: now))
    await failure(model)
    assert model.breaker.state is BreakerState.CLOSED  # three tries are one call, and one call is no rate
    await failure(model)
    assert (server.count, model.breaker.state) == (6, BreakerState.OPEN)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"judge at {server.base_url} keeps failing and is left alone for a while"
    ]
    assert "left alone, for 60.0 s more" in await failure(model)
    assert server.count == 6
    now = 60.0
    assert await ask(model) == "Back again"
    assert model.breaker.state is BreakerState.CLOSED


async def test_a_patient_call_waits_for_the_probe_and_no_longer_than_it_may(endpoint_server):
    server = endpoint_server(script(*[BROKEN] * 2, "Back again"))
    model = endpoint(server, retries=0, patience=20.0, breaker=Breaker(window=2, min_calls=2, cool_down=0.5))
    await failure(model)
    await failure(model)
    begun = time.monotonic()
    # One of them is the probe; the others wait until it has shown that the service is back.
    assert await asyncio.gather(*(ask(model) for _ in range(4))) == ["Back again"] * 4
    assert 0.5 <= time.monotonic() - begun < 15

    model = endpoint(endpoint_server(script(BROKEN)), retries=0, patience=0.3, breaker=breaker())
    for _ in range(2):
        await failure(model)
    begun = time.monotonic()
    assert "left alone" in await failure(model)
    assert time.monotonic() - begun < 5  # the probe is 60 s away, so there is nothing to wait for


@pytest.mark.parametrize("reply", [BUSY, Reply(400), says("")], ids=["busy", "refused", "empty"])
async def test_a_service_that_answers_is_not_left_alone(endpoint_server, reply):
    now = 0.0
    server = endpoint_server(script(*[reply] * 5, BROKEN, BROKEN, reply))
    model = endpoint(server, retries=0, breaker=breaker(lambda: now))
    for _ in range(5):
        await failure(model)
    assert model.breaker.state is BreakerState.CLOSED
    for _ in range(2):
        await failure(model)
    assert model.breaker.state is BreakerState.OPEN
    now = 60.0
    assert "left alone" not in await failure(model)
    assert model.breaker.state is BreakerState.CLOSED  # whatever it says, it is back


async def test_calls_that_are_cancelled_do_not_open_the_breaker(endpoint_server):
    model = endpoint(endpoint_server(script(HANG)), breaker=breaker())
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(model), 0.05)
    assert model.breaker.state is BreakerState.CLOSED


CANARY = "sk-canary-3f9a1c"


async def test_the_key_reaches_the_server_and_nobody_else(endpoint_server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    echo = Reply(401, {"error": {"message": f"wrong key: {CANARY}"}})
    server = endpoint_server(script("Hi", echo, Reply(500, f"{CANARY}".encode()), MALFORMED))
    model = endpoint(server, api_key_env="JUDGE_KEY", retries=1)
    assert await ask(model) == "Hi"
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    seen = [repr(model), str(vars(model)), json.dumps(model.describe())]
    for _ in range(2):
        try:
            await ask(model)
        except ChatFailed as error:
            seen += ["".join(traceback.format_exception(error)), repr(error)]
    assert "wrong key: ***" in seen[3]
    assert CANARY not in "".join(seen)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("value", [None, "", "two\r\nX-Other: words", "schl\u00fcssel", "a b"])
async def test_a_key_that_cannot_be_sent_is_told_without_it_and_before_a_run(endpoint_server, monkeypatch, value):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    server = endpoint_server(script("Hi"))
    model = endpoint(server, api_key_env="JUDGE_KEY")
    text = await failure(model)
    with pytest.raises(ConfigError) as caught:
        model.check()
    for told in (text, str(caught.value)):
        assert "the environment variable JUDGE_KEY (api_key_env)" in told
        assert not value or value not in told
    assert server.count == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/v1", "must be a whole URL"),
        ("host:8000/v1", "must be a whole URL"),
        ("http:///v1", "must be a whole URL"),
        ("http://host:port/v1", "must be a whole URL"),
        ("http://ho st/v1", "must be a whole URL"),
        (None, "must be a whole URL"),
        ("http://me:secret@host/v1", "holds a user or a password"),
        ("http://host/v1?key=secret", 'something after "\\?"'),
        ("http://169.254.169.254/v1", "link-local"),
        ("http://[::ffff:169.254.169.254]/v1", "link-local"),
        ("http://[fe80::1%25eth0]/v1", "link-local|whole URL"),
        ("http://0.0.0.0:8000/v1", "unspecified"),
        ("http://224.0.0.1/v1", "multicast"),
        ("http://2852039166/v1", "write it as 169.254.169.254"),
        ("http://0xa9fea9fe/v1", "write it as 169.254.169.254"),
        ("http://0177.0.0.1/v1", "write it as 127.0.0.1|whole URL"),
        ("http://127.1/v1", "write it as 127.0.0.1"),
        ("http://127.0.0.1./v1", "write it as 127.0.0.1"),
    ],
)
def test_addresses_where_no_model_can_be_are_refused(url, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1/", "http://[::1]:8000/v1", "http://localhost/v1", "http://10.0.0.7/v1"]
)
def test_this_machine_and_private_networks_are_where_judges_live(url):
    assert Endpoint(url, "m").base_url == url.rstrip("/")


def test_a_key_goes_over_https_or_to_this_machine():
    for url in ("https://api.example.com/v1", "http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]/v1"):
        Endpoint(url, "m", api_key_env="JUDGE_KEY")
    for url in ("http://api.example.com/v1", "http://10.0.0.7/v1", "http://localhost.example.com/v1"):
        with pytest.raises(ConfigError, match="for anyone to read"):
            Endpoint(url, "m", api_key_env="JUDGE_KEY")


@pytest.mark.parametrize("name", [CANARY, "hf_Abc", "", 3, "A-B"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(name):
    with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
        Endpoint("http://localhost/v1", "m", api_key_env=name)
    assert not name or str(name) not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"retries": -1}, {"concurrency": 0}, {"total_seconds": -1.0}])
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Endpoint("http://localhost/v1", "m", **wrong)
    with pytest.raises(ConfigError, match="model is ' '"):
        Endpoint("http://localhost/v1", " ")


def test_an_answer_that_is_cut_by_its_length_is_still_what_the_model_said():
    body = {"choices": [{"finish_reason": "length", "message": {"content": "And then"}}]}
    assert read_answer(json.dumps(body).encode()) == "And then"
    with pytest.raises(BadAnswer, match=r"finish_reason 'length'"):
        read_answer(json.dumps({"choices": [{"finish_reason": "length", "message": {"content": None}}]}).encode())


async def test_a_proxy_of_the_environment_is_not_told_what_this_machine_asks_itself(endpoint_server, monkeypatch):
    proxy, server = endpoint_server(script("I read along")), endpoint_server(script("Hi"))
    monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
    monkeypatch.setenv("ALL_PROXY", proxy.base_url.removesuffix("/v1"))
    assert await ask(endpoint(server)) == "Hi"
    assert proxy.count == 0


def test_an_endpoint_is_the_same_after_its_config_and_is_shared_by_copies():
    model = Endpoint("http://localhost/v1/", "m", api_key_env="JUDGE_KEY", retries=0, extra_body={"seed": None})
    config = {
        "base_url": "http://localhost/v1",
        "model": "m",
        "api_key_env": "JUDGE_KEY",
        "retries": 0,
        "extra_body": {"seed": None},
    }
    assert model.to_config() == config
    assert Endpoint(**config).to_config() == config
    assert Endpoint("http://localhost/v1", "m").to_config() == {"base_url": "http://localhost/v1", "model": "m"}
    assert copy.deepcopy(model) is model
