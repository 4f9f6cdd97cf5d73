"""A chat server with the interface of OpenAI's, on loopback, that answers or misbehaves as a test tells it to.

    def behaviour(number, body):      # number: of the request, from 0 in order of arrival; body: what was asked
        return "Hello!" if number else BROKEN

    with EndpointServer(behaviour) as server:
        server.base_url, server.count, server.bodies, server.headers

It is a real server behind a real socket, in a thread and an event loop of its own. The fixture `endpoint_server` starts
them for a test and stops them after it.
"""

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn


@dataclass
class Reply:
    """What goes over the wire.

    Attributes:
        status: of HTTP.
        body: JSON values, or the very bytes.
        headers: more of them.
        delay: seconds before anything is sent; None never answers.
        cut: bytes after which the connection is dropped in the middle of the body.
        pause: seconds between one byte of the body and the next.
    """

    status: int = 200
    body: Any = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float | None = 0.0
    cut: int | None = None
    pause: float = 0.0

    def to_bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def says(text: Any, **more: Any) -> Reply:
    """A well-formed answer with this text."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return Reply(body={"id": "x", "object": "chat.completion", "model": "test", "choices": [choice]}, **more)


HANG = Reply(delay=None)
MALFORMED = Reply(body=b'{"choices": [')
CUT = says("This never arrives as a whole.", cut=20)
BUSY = Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "0.01"})
BROKEN = Reply(500, {"error": {"message": "out of order"}})

Behaviour = Callable[[int, dict[str, Any]], Reply | str | Awaitable[Reply | str]]


def script(*replies: Reply | str) -> Behaviour:
    """The replies in order of arrival, and the last one for ever after."""
    return lambda number, body: replies[min(number, len(replies) - 1)]


def tiny_model(max_new_tokens: int = 12) -> Behaviour:
    """The `tiny` model as the one that answers: its weights are random, and so are its words."""
    from stateset_agents.agents import AgentConfig, MultiTurnAgent

    agent = MultiTurnAgent(AgentConfig("tiny", max_new_tokens=max_new_tokens, temperature=1.0))

    async def answer(number: int, body: dict[str, Any]) -> str:
        await agent.initialize()
        fork = agent.fork(str(body.get("seed", number)))
        try:
            return await fork.generate_response(body["messages"]) or "..."
        finally:
            fork.release()

    return answer


class EndpointServer:
    """Serves POST {base_url}/chat/completions; text that a behaviour returns is a well-formed answer."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.count = 0
        """Requests that arrived so far."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self._serve, lifespan="off", interface="asgi3", log_level="critical", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> "EndpointServer":
        self._socket.listen(128)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()

    def stop(self) -> None:
        """Ask it to end; it does so in a moment."""
        self._server.should_exit = True

    def join(self) -> None:
        self._thread.join(10)
        self._socket.close()

    async def _serve(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        asked = b""
        more = True
        while more:
            message = await receive()
            asked += message.get("body", b"")
            more = message.get("more_body", False)
        if (scope["method"], scope["path"]) != ("POST", "/v1/chat/completions"):
            await _send(send, Reply(404, {"error": {"message": f"there is no {scope['path']}"}}))
            return
        number, body = self.count, json.loads(asked)
        self.count += 1
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self.behaviour(number, body)
            reply = await answer if inspect.isawaitable(answer) else answer
            await _send(send, says(reply) if isinstance(reply, str) else reply)
        finally:
            self.in_flight -= 1


async def _send(send: Any, reply: Reply) -> None:
    if reply.delay is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(reply.delay)
    body = reply.to_bytes()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **reply.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    if reply.pause:
        for place in range(len(body)):
            await send({"type": "http.response.body", "body": body[place : place + 1], "more_body": True})
            await asyncio.sleep(reply.pause)
        body = b""
    await send({"type": "http.response.body", "body": body[: reply.cut], "more_body": reply.cut is not None})
    if reply.cut is not None:
        raise ConnectionAbortedError("this reply was to be cut")  # an app that fails in a reply loses its connection
