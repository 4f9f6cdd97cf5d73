"""The service behind a real socket: clients that are slow, many, or gone."""

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from serving import HI, Serving
from stateset_agents.agents import MultiTurnAgent
from stateset_agents.api.app import Door
from stateset_agents.api.http_limits import HttpLimits
from stateset_agents.api.limits import ServeLimits
from stateset_agents.engines.stub import StubEngine

START = b"POST /chat/start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def agent_of(**behaviour: Any) -> MultiTurnAgent:
    """An agent whose engine behaves like this (see `StubEngine`)."""
    agent = MultiTurnAgent.from_model("stub://")
    await agent.initialize()
    codec = agent.runtime.codec
    agent.runtime.engine = StubEngine(codec._tokenizer, codec, **behaviour)
    return agent


def raw(port: int, data: bytes, seconds: float = 5) -> tuple[bytes, float]:
    """What a server answers to these bytes, and after how long it closes."""
    begun = time.monotonic()
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        while part := connection.recv(65536):
            answer += part
    return answer, time.monotonic() - begun


def test_a_body_that_does_not_come_is_408_and_the_connection_is_closed(tmp_path: Path):
    with Serving(tmp_path, door=Door(limits=HttpLimits(body_seconds=0.3))) as server:
        answer, seconds = raw(server.port, START + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert 0.2 < seconds < 3


@pytest.mark.parametrize("data", [b"", b"POST /chat", START, START + b"X: " + b"y" * 1000])
def test_headers_that_do_not_come_end_the_connection(tmp_path: Path, data: bytes):
    with Serving(tmp_path, door=Door(limits=HttpLimits(header_seconds=0.3))) as server:
        answer, seconds = raw(server.port, data)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.2 < seconds < 3


def test_headers_that_trickle_in_after_a_first_request_end_the_connection_too(tmp_path: Path):
    with Serving(tmp_path, door=Door(limits=HttpLimits(header_seconds=0.3))) as server:
        request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(request + b"\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            begun = time.monotonic()
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
            assert connection.recv(65536) == b""
            assert 0.2 < time.monotonic() - begun < 3


def test_a_slow_reply_is_not_taken_for_a_slow_request(tmp_path: Path):
    agent = asyncio.run(agent_of(latency=0.8))
    with Serving(tmp_path, agent, door=Door(limits=HttpLimits(header_seconds=0.2, body_seconds=0.2))) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={"model": "agent", "messages": HI})
        assert answer.status_code == 200


def test_chunks_without_end_are_413(tmp_path: Path):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with Serving(tmp_path) as server:
        bomb = START + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40
        answer, _ = raw(server.port, bomb)
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_says_it_is_too_long_is_413(tmp_path: Path):
    with Serving(tmp_path) as server:
        answer, seconds = raw(server.port, START + b"Content-Length: 99999999999\r\n\r\n" + b" " * 100)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert seconds < 3


def test_more_connections_than_allowed_are_closed_and_the_server_lives(tmp_path: Path):
    with Serving(tmp_path, door=Door(limits=HttpLimits(connections=20))) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(40)]
        time.sleep(0.3)
        refused = sum(connection.recv(100).startswith(b"HTTP/1.1 503") for connection in idle[20:])
        for connection in idle:
            connection.close()
        assert refused == 20
        time.sleep(0.1)
        assert httpx.get(f"{server.url}/livez").status_code == 200


def test_who_does_not_read_his_answer_does_not_keep_his_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stateset_agents.api.server._UNREAD_SECONDS", 1)
    with Serving(tmp_path, greeting="x" * 5_000_000) as server:
        place = httpx.post(f"{server.url}/chat/start").headers["location"]
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", server.port))
        silent.sendall(f"GET {place}/history HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connections = server._server.server_state.connections
        deadline = time.monotonic() + 20
        while not connections or any(one.cycle is None for one in connections):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while connections:
            assert time.monotonic() < deadline, "the connection is still there"
            time.sleep(0.05)
        silent.close()


def test_a_client_that_leaves_before_its_body_is_whole_is_counted_as_gone(tmp_path: Path):
    with Serving(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(START + b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.1)
        deadline = time.monotonic() + 5
        while 'status="499"' not in (text := server.service.metrics.text().decode()):
            assert time.monotonic() < deadline, text
            time.sleep(0.01)


async def until(condition: Any, seconds: float) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("door", ["/chat", "/v1"])
async def test_a_client_that_leaves_frees_its_place_in_half_a_second(tmp_path: Path, stream: bool, door: str):
    agent = await agent_of(latency=30)
    with Serving(tmp_path, agent, limits=ServeLimits(max_running=1, max_waiting=0)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            place = (await http.post("/chat/start", json={})).headers["location"]
            path = f"{place}/message" if door == "/chat" else "/v1/chat/completions"
            body = {"message": "Hi"} if door == "/chat" else {"model": "agent", "messages": HI}
            asking = asyncio.create_task(http.post(path, json={**body, "stream": stream}))
            await until(lambda: server.service.conversations.gate.running == 1, 5)
            asking.cancel()
            await until(lambda: server.service.conversations.gate.running == 0, 0.5)
            await until(lambda: 'status="499"' in server.service.metrics.text().decode(), 1)
            assert len((await http.get(f"{place}/history")).json()["turns"]) == 1


async def test_overload_is_answered_by_200_and_429_alone(tmp_path: Path):
    limits = ServeLimits(max_running=8, max_waiting=8, max_conversations=100)
    with Serving(tmp_path, await agent_of(latency=0.02), limits=limits) as server:
        pool = httpx.Limits(max_connections=160)
        async with httpx.AsyncClient(base_url=server.url, limits=pool, timeout=60) as http:
            body = {"model": "agent", "messages": HI}
            answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for _ in range(160)))
            statuses = {answer.status_code for answer in answers}
            assert statuses == {200, 429}
            assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
            started = await asyncio.gather(*(http.post("/chat/start", json={}) for _ in range(160)))
            assert sorted(answer.status_code for answer in started) == [200] * 100 + [429] * 60
            assert server.service.conversations.gate.running == 0


async def test_a_hundred_conversations_at_once_have_no_error_and_no_mixed_reply(tmp_path: Path):
    with Serving(tmp_path, "stub://echo", limits=ServeLimits(max_waiting=200)) as server:
        pool = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, limits=pool, timeout=60) as http:

            async def talk(number: int) -> list[str]:
                place = (await http.post("/chat/start", json={})).headers["location"]
                for turn in range(3):
                    said = f"I am {number} for time {turn}"
                    answer = await http.post(f"{place}/message", json={"message": said})
                    assert answer.json()["response"] == said
                return [turn["content"] for turn in (await http.get(f"{place}/history")).json()["turns"]]

            told = await asyncio.gather(*map(talk, range(100)))
    for number, turns in enumerate(told):
        assert turns[1:] == [f"I am {number} for time {turn // 2}" for turn in range(6)]


async def test_streams_and_turns_are_finished_before_the_server_ends_and_new_ones_are_refused(tmp_path: Path):
    agent = await agent_of(latency=0.5)
    server = Serving(tmp_path, agent)
    with server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            place = (await http.post("/chat/start", json={})).headers["location"]
            body = {"model": "agent", "messages": HI}
            running = [
                asyncio.create_task(http.post(f"{place}/message", json={"message": "Hi", "stream": True})),
                asyncio.create_task(http.post("/v1/chat/completions", json={**body, "stream": True})),
                asyncio.create_task(http.post("/v1/chat/completions", json=body)),
            ]
            await until(lambda: server.service.conversations.gate.running == 3, 5)
            server.end()
            await until(lambda: server.service.condition.phase == "draining", 5)
            ready = await http.get("/readyz")
            refused = [
                await http.post("/chat/start", json={}),
                await http.post(f"{place}/message", json={"message": "Hi"}),
                await http.post("/v1/chat/completions", json=body),
            ]
            answers = await asyncio.gather(*running)
    assert (ready.status_code, ready.json()["phase"]) == (503, "draining")
    assert (await_status(refused), await_status(answers)) == ([503] * 3, [200] * 3)
    assert all("retry-after" in answer.headers and answer.headers["connection"] == "close" for answer in refused)
    assert "event: done" in answers[0].text
    assert answers[1].text.endswith("data: [DONE]\n\n")


def await_status(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


async def test_what_is_not_done_in_time_ends_with_an_error_that_its_client_can_read(tmp_path: Path):
    agent = await agent_of(latency=30)
    server = Serving(tmp_path, agent, shutdown_seconds=0.2)
    with server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            place = (await http.post("/chat/start", json={})).headers["location"]
            asking = asyncio.create_task(http.post(f"{place}/message", json={"message": "Hi"}))
            completing = asyncio.create_task(
                http.post("/v1/chat/completions", json={"model": "agent", "messages": HI, "stream": True})
            )
            await until(lambda: server.service.conversations.gate.running == 2, 5)
            server.end()
            answer, completion = await asking, await completing
    assert (answer.status_code, answer.json()["type"].partition("#")[2]) == (503, "turn-cancelled")
    if completion.status_code == 200:
        assert json.loads(completion.text.split("data: ")[-1])["error"]["code"] == "turn-cancelled"
    else:
        assert completion.json()["error"]["code"] == "turn-cancelled"


async def test_silence_in_a_stream_is_broken_by_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from stateset_agents.api import openai_routes

    monkeypatch.setattr(openai_routes, "EventStream", lambda source: sse.EventStream(source, heartbeat=0.05))
    from stateset_agents.api import sse

    with Serving(tmp_path, await agent_of(latency=0.4)) as server:
        body = {"model": "agent", "messages": HI, "stream": True}
        answer = await asyncio.to_thread(httpx.post, f"{server.url}/v1/chat/completions", json=body)
        text = answer.text
    assert 3 <= text.count(": keep-alive\n\n") <= 10
    assert text.endswith("data: [DONE]\n\n")
