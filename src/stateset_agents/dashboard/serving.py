"""A server for the dashboard: where it listens, and how it ends.

Invariant: without being told, it listens on this machine alone. Nothing else is reached by opening a port by mistake.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from ..core.errors import ConfigError
from .access import LOOPBACK, host_headers
from .runs import RunLibrary
from .server import create_app

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not listened on


def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    allowed: Sequence[str] = (),
    unguarded: bool = False,
    say: Callable[[str], None],
) -> None:
    """Show the runs of a folder until somebody ends it.

    Args:
        folder: of a run, or of several.
        host, port: where to listen; port 0 takes one that is free.
        allowed: more names by which browsers may call this server.
        unguarded: whether others than this machine may look, without any password.
        say: tells where the page is.

    Raises:
        RunFolderError: there is no run.
        ConfigError: the address is refused, unknown or taken.
    """
    if not unguarded and not _is_loopback(host):
        raise ConfigError(
            f"--host is {host}, where others than this machine can look at everything that the runs hold: the "
            "dashboard has no password.\n"
            "  leave --host out and reach it through a tunnel (ssh -L), or say --insecure-no-auth"
        )
    library = RunLibrary(folder)
    with contextlib.closing(_listen(host, port)) as listener:
        number = listener.getsockname()[1]
        names = {*LOOPBACK, *allowed, *([] if host in _EVERYWHERE else [host])}
        app = create_app(library, host_headers(names, number), closing=lambda: server.should_exit)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2, lifespan="off"
        )
        server = uvicorn.Server(settings)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        shown = "localhost" if host in (*_EVERYWHERE, *LOOPBACK) else host
        say(f"The dashboard is at http://{f'[{shown}]' if ':' in shown else shown}:{number}/ (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            "127.0.0.1" if host == "localhost" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise ConfigError(f"--host is {host!r}, which is no address of this machine ({error})") from None
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        match error.errno:
            case errno.EADDRINUSE:
                fix = f"port {port} is taken: choose another one with --port, or any that is free with --port 0"
            case errno.EACCES:
                fix = f"port {port} may not be used by you: choose one above 1023 with --port"
            case _:
                fix = f"{host} port {port} cannot be listened on ({error.strerror or error}): choose another --host"
        raise ConfigError(fix) from None
    return listener
