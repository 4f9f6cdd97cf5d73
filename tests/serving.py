"""The service behind a real socket on loopback, in a thread and an event loop of its own.

    with Serving(tmp_path, "stub://Hello there") as server:
        httpx.get(f"{server.url}/health")

`client(...)` is the same application without a socket, for tests of what goes into a response.
"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx

from stateset_agents.agents import MultiTurnAgent
from stateset_agents.api.server import Server, bound_socket
from stateset_agents.api.service import Opened, Service
from stateset_agents.api.sqlite_store import SqliteStore

HI = [{"role": "user", "content": "Hi"}]


def service_of(folder: Path, model: str | MultiTurnAgent = "stub://Hello there", **settings: Any) -> Service:
    """A service that is not open: of a model by its name, or of an agent."""
    longest = 12 if model == "tiny" else 256
    agent = MultiTurnAgent.from_model(model, max_new_tokens=longest) if isinstance(model, str) else model
    return Service("agent", Opened(agent, 7), partial(SqliteStore, folder / "conversations.sqlite3"), **settings)


@asynccontextmanager
async def client(
    service: Service, *, token: str | None = None, host: str = "localhost"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an open service, without a socket between them."""
    await service.open()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(service.app(), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers) as http:
            yield http
    finally:
        await service.drain(0)
        await service.close()


class Serving:
    """A server for the block's time."""

    def __init__(
        self,
        folder: Path,
        model: str | MultiTurnAgent = "stub://Hello there",
        *,
        shutdown_seconds: float = 5,
        **settings: Any,
    ) -> None:
        self.service = service_of(folder, model, **settings)
        self._socket: socket.socket = bound_socket("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = Server(self.service, shutdown_seconds)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> "Serving":
        self._thread.start()
        deadline = time.monotonic() + 60
        while self.service.condition.phase != "ready" or not self._server.started:
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.01)
        return self

    def end(self) -> None:
        """What SIGTERM does."""
        assert self._loop is not None
        self._ended = True
        self._loop.call_soon_threadsafe(self._server.end)

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self.end()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve_until_ended(self._socket)

        asyncio.run(serve())
