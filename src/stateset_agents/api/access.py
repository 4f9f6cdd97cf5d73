"""Who may come in: tokens, hosts and origins.

Invariant: deny by default. What needs no token is a short list of exact paths, compared with the path that the server
routes by; nothing a client writes into a header decides it. Tokens are compared as digests, in constant time, in one
place.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..core.errors import ConfigError
from .problems import answer
from .refusals import ForeignOrigin, Unauthorized, UnknownHost
from .store import owner_of

PUBLIC = frozenset({"/health", "/livez", "/readyz"})
"""Paths that need no token."""

_CHANGES = ("POST", "PUT", "PATCH", "DELETE")


class Tokens:
    """The tokens that open the server; several, so that one can be replaced by another without a gap.

    Args:
        tokens: the values. None are kept, only their digests.

    Raises:
        ConfigError: one is empty, or holds what no header can carry.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        given = list(tokens)
        if any(not token or not re.fullmatch(r"[\x21-\x7e]+", token) for token in given):
            raise ConfigError(
                "an auth token is empty or holds spaces or characters beyond ASCII; use letters and digits"
            )
        self._digests = [owner_of(token) for token in given]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str | None) -> str | None:
        """Whom a request with this `Authorization` header belongs to; None for nobody who may come in."""
        if not self._digests:
            return owner_of(None)
        scheme, _, token = (authorization or "").partition(" ")
        asked = owner_of(token.strip() or " ")
        # All of them are compared, whichever fits: how long it takes tells nothing.
        fitting = [known for known in self._digests if hmac.compare_digest(known, asked)]
        return asked if fitting and scheme.lower() == "bearer" else None


def read_tokens(file: str | Path) -> list[str]:
    """The tokens in a file, one a line; blank lines and lines that begin with # are none.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--auth-token-file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens:
        raise ConfigError(f"--auth-token-file {file} holds no token; write one a line")
    return tokens


class RequireToken:
    """ASGI middleware: lets in who has a token, and notes whom the request belongs to.

    `scope["state"]` has the `owner`, by whom conversations are kept apart, and the `client`, who takes turns with
    others where there is too much to do: the owner too, or without tokens the address.

    Args:
        app: what is behind it.
        tokens: none let everybody in.
        public: exact paths that need none.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, public: Iterable[str] = PUBLIC) -> None:
        self._app = app
        self._tokens = tokens
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        owner = self._tokens.owner(Headers(scope=scope).get("authorization"))
        scope["state"]["owner"] = owner
        scope["state"]["client"] = owner or (scope.get("client") or ("",))[0]
        if owner is None and scope["path"] not in self._public:
            await answer(Unauthorized(), scope, send)
            return
        await self._app(scope, receive, send)


class SameSite:
    """ASGI middleware: for a server without tokens, keeps out pages of other sites that a browser here has open.

    A name that an attacker's DNS points at this machine is no name of this server; and a page may post to any server,
    but not without saying where it comes from.

    Args:
        app: what is behind it.
        hosts: names by which it may be called; None: any, for a server that others reach under names unknown here.
        origins: of pages that may change something (`--cors-origins`).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None, origins: Sequence[str] = ()) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            await answer(UnknownHost(), scope, send)
            return
        origin = headers.get("origin")
        if origin is not None and scope["method"] in _CHANGES and not self._expected(origin, host):
            await answer(ForeignOrigin(), scope, send)
            return
        await self._app(scope, receive, send)

    def _expected(self, origin: str, host: str) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdecimal() else host.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def loopback_names(host: str) -> set[str]:
    """Names by which a browser on this machine may call a server that listens at `host`."""
    return {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower().strip('[]')}]"}


def parse_origins(text: str) -> list[str]:
    """The origins of `--cors-origins`: exact, such as `https://myapp.com`; or `*` alone, for everybody.

    Raises:
        ConfigError: one is no origin.
    """
    origins = [part.strip() for part in text.split(",") if part.strip()]
    problems = []
    for origin in origins:
        try:
            parts = urlsplit(origin)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        exact = f"{parts.scheme}://{parts.hostname or ''}" + (f":{port}" if port is not None else "")
        whole = parts.scheme in ("http", "https") and parts.hostname and exact == origin.lower() == origin
        if origin != "*" and not whole:
            problems.append(
                f"--cors-origins has {origin!r}, which is no origin; write scheme and host in small letters, without a "
                "path: https://myapp.com"
            )
    if "*" in origins and len(origins) > 1:
        problems.append("--cors-origins has * beside others; * already is every origin")
    if not origins:
        problems.append("--cors-origins is empty; leave it out, or name origins such as https://myapp.com")
    if problems:
        raise ConfigError(*problems)
    return origins
