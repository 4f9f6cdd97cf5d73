"""One request and its response, seen from outside: its id, its time, its status, and what nobody foresaw.

Invariant: every request is answered, counted and logged once, whatever happens inside. What goes wrong unforeseen is
logged with its traceback and answered with 500 and no detail.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import answer
from .refusals import Crashed

logger = logging.getLogger(__name__)

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_GONE = 499
"""What metrics say of a client that did not wait; it never sees it."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_ASKED_OFTEN = ("/health", "/livez", "/metrics", "/readyz")
"""By machines, every few seconds; no log is for that."""

_NO_ROUTE = "none"
"""What metrics call the route of a request that no route took; a log writes "-"."""

_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Exchange:
    """ASGI middleware around everything but CORS.

    Args:
        app: what is behind it.
        metrics: gets the request's count and time.
        draining: whether connections should end with the response, as the server is about to.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            raise RuntimeError(f"this server speaks HTTP alone, not {scope['type']}")
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        scope["state"] = {"request_id": request_id}
        status, whole = 0, False

        async def noted(message: Message) -> None:
            nonlocal status, whole
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), *_HEADERS]
                if self._draining() and all(name != b"connection" for name, _ in message["headers"]):
                    own.append((b"connection", b"close"))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        begun = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
            if scope["state"].get("client_gone"):
                status = _GONE
        except asyncio.CancelledError:
            status = status or _GONE
            raise
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:  # the response has begun, and its client must not take it for whole
                raise
            if not status:
                await answer(Crashed(), scope, noted)
        finally:
            self._count(scope, status, time.perf_counter() - begun)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if status == 429:
            self._metrics.rate_limited.inc()
        level = logging.DEBUG if route in _ASKED_OFTEN else logging.INFO
        logger.log(
            level,
            "%s %s %d in %.1f ms, request %s",
            method,
            "-" if route == _NO_ROUTE else route,
            status,
            1000 * seconds,
            scope["state"]["request_id"],
        )


def route_of(scope: Scope) -> str:
    """The template of the route that took the request, `/chat/{conversation_id}/message`; "none" for none."""
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or _NO_ROUTE)
