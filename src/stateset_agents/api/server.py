"""The process that serves: from its socket to its end.

Invariant: SIGTERM loses no turn. First `/readyz` says no and new turns are refused, then those that run are waited for,
what is left after `shutdown_seconds` ends with an error its client can read, and then the process ends with exit code
0. A second signal ends it at once. SIGHUP puts another checkpoint in the place of the one that is served, or leaves
everything as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn

from ..core.errors import EXIT_INTERRUPTED, ConfigError
from ..core.signals import SAME_SIGNAL
from .connections import connections_with
from .service import Service

logger = logging.getLogger(__name__)

_LAST_BYTES_SECONDS = 5
"""For responses that are made to reach clients that read slowly."""

_UNREAD_SECONDS = 60
"""That a client may leave unread what was sent, before its connection is cut."""

_BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, whose signals are ours.

    Args:
        service: what is served.
        shutdown_seconds: that turns have to finish after SIGTERM.
    """

    def __init__(self, service: Service, shutdown_seconds: float) -> None:
        limits = service.door.limits
        config = uvicorn.Config(
            service.app(),
            http=connections_with(limits),
            ws="none",
            lifespan="off",
            interface="asgi3",
            server_header=False,
            proxy_headers=False,
            access_log=False,
            log_config=None,
            backlog=_BACKLOG,
            timeout_keep_alive=int(limits.idle_seconds),
            timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
        )
        super().__init__(config)
        self._service = service
        self._shutdown_seconds = shutdown_seconds
        self._ending: asyncio.Task[None] | None = None
        self._ending_since = 0.0
        self._reloading: asyncio.Task[None] | None = None

    async def serve_until_ended(self, listening: socket.socket, announce: Callable[[], None] = lambda: None) -> None:
        """Serve: at once, with the model loaded meanwhile.

        Args:
            listening: where.
            announce: is called when signals are handled and connections wait.

        Raises:
            StatesetError: the model or the store cannot be opened.
        """
        with self._handled_signals():
            announce()
            serving = asyncio.create_task(self.serve([listening]))
            loading = asyncio.create_task(self._service.open())
            try:
                await asyncio.wait([serving, loading], return_when=asyncio.FIRST_COMPLETED)
                if loading.done() and loading.exception() is not None:
                    self.should_exit = True
                await serving
                if loading.done():
                    loading.result()
            finally:
                loading.cancel()
                await asyncio.wait([loading])
                if self._reloading is not None:
                    self._reloading.cancel()
                await self._service.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `serve_until_ended` handles them, also before and after uvicorn serves."""
        yield

    @contextlib.contextmanager
    def _handled_signals(self) -> Iterator[None]:
        """Handle signals in the event loop, where what they start can wait."""
        loop = asyncio.get_running_loop()
        handled = {signal.SIGTERM: self.end, signal.SIGINT: self.end, signal.SIGHUP: self.reload}
        if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
            handled = {}
        for number, handler in handled.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Begin to end; a second call ends at once."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
            self._ending_since = time.monotonic()
        elif time.monotonic() - self._ending_since > SAME_SIGNAL:
            logger.warning("stopping at once: what runs is cut; nothing that was acknowledged is lost")
            logging.shutdown()
            os._exit(EXIT_INTERRUPTED)

    def reload(self) -> None:
        """Take another checkpoint, unless that is being done."""
        if self._ending is not None:
            return
        if self._reloading is not None and not self._reloading.done():
            logger.warning("a checkpoint is being loaded already")
            return
        self._reloading = asyncio.create_task(self._service.reload())

    async def _end(self) -> None:
        try:
            await self._service.drain(self._shutdown_seconds)
        except Exception:
            logger.exception("the server could not end in order")
        finally:
            self.should_exit = True


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address cannot be had; the message says which port could.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; each connection has it from here
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNREAD_SECONDS)
        listening.bind(address)
        listening.listen(_BACKLOG)  # who connects now is answered as soon as the server runs
    except OSError as error:
        listening.close()
        raise ConfigError(_why_not(host, port, error)) from None
    return listening


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        fix = "choose another one with --port, or any that is free with --port 0"
        return f"port {port} of {host} is in use by another program; {fix}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is for root alone (permission denied); choose one from 1024 on, such as --port 8080"
    return f"cannot listen at {host}, port {port}: {error.strerror}"


def url_of(host: str, listening: socket.socket) -> str:
    """Where a server that listens there is found."""
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{name}:{listening.getsockname()[1]}"
