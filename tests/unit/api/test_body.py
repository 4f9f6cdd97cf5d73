import json
from pathlib import Path

import pytest

from serving import client, service_of
from stateset_agents.api.app import Door
from stateset_agents.api.http_limits import HttpLimits
from stateset_agents.core.errors import ConfigError

JSON = {"Content-Type": "application/json"}
SMALL = Door(limits=HttpLimits(body_bytes=1000, json_depth=5, json_values=50, text_characters=100))


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{}", 200, None),
        (b" " * 1000, 400, "malformed-json"),
        (b'{"user_id": "' + b"x" * 1000 + b'"}', 413, "body-too-large"),
        (b"{", 400, "malformed-json"),
        (b"\xff{}", 400, "malformed-json"),
        (b'{"user_id": NaN}', 400, "malformed-json"),
        (b'{"user_id": "a", "user_id": "b"}', 400, "malformed-json"),
        (b'{"context": {"n": ' + b"9" * 900 + b"}}", 200, None),
        (b'{"context": {"a": {"b": {"c": 1}}}}', 200, None),
        (b'{"context": {"a": {"b": {"c": {"d": 1}}}}}', 422, "json-too-large"),
        (b'{"context": {"a": [' + b"1," * 60 + b"1]}}", 422, "json-too-large"),
        (b'{"user_id": "' + b"x" * 101 + b'"}', 422, "json-too-large"),
        (b'{"user_id": "\\u0000"}', 200, None),
        (b'{"user_id": "\\ud800"}', 422, "invalid-request"),
        (b'{"user_id": "\\ud83d\\ude00"}', 200, None),
        (b'{"user_id": 7}', 422, "invalid-request"),
        (b'{"users": "a"}', 422, "invalid-request"),
        (b"[]", 422, "invalid-request"),
    ],
)
async def test_a_body_is_within_its_bounds_or_refused_with_what_is_wrong(
    tmp_path: Path, body: bytes, status: int, slug: str | None
):
    async with client(service_of(tmp_path, door=SMALL)) as http:
        answer = await http.post("/chat/start", content=body, headers=JSON)
        assert answer.status_code == status
        if slug:
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json"
            assert problem["type"].endswith(f"#{slug}")
            assert (problem["status"], problem["instance"]) == (status, answer.headers["x-request-id"])


async def test_a_hundred_thousand_levels_are_refused_before_anything_recurses(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        for body in (b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 33 + b"]" * 33):
            answer = await http.post("/chat/start", content=body, headers=JSON)
            assert (answer.status_code, answer.json()["type"].partition("#")[2]) == (422, "json-too-large")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.x+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
async def test_a_body_must_say_that_it_is_json(tmp_path: Path, kind: str, status: int):
    async with client(service_of(tmp_path)) as http:
        answer = await http.post("/chat/start", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == status


async def test_bytes_are_counted_as_they_arrive_whatever_was_declared(tmp_path: Path):
    async def chunks():
        for _ in range(200):
            yield b" " * 100

    async with client(service_of(tmp_path, door=SMALL)) as http:
        answer = await http.post("/chat/start", content=chunks(), headers=JSON)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"


async def test_what_was_sent_is_not_repeated(tmp_path: Path):
    async with client(service_of(tmp_path)) as http:
        for body in ({"user_id": ["CANARY"]}, {"context": "CANARY"}, {"message": {"CANARY": 1}}):
            for path in ("/chat/start", "/chat/conv_x/message", "/v1/chat/completions"):
                answer = await http.post(path, content=json.dumps(body), headers=JSON)
                assert answer.status_code in (400, 422)
                assert "CANARY" not in answer.text
        for message in ({"role": "CANARY", "content": "x"}, {"role": ["CANARY"], "content": "x"}, "CANARY"):
            body = {"model": "agent", "messages": [message]}
            answer = await http.post("/v1/chat/completions", content=json.dumps(body), headers=JSON)
            assert answer.status_code == 400
            assert "CANARY" not in answer.text


def test_a_bound_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="body_bytes is 0"):
        HttpLimits(body_bytes=0)
