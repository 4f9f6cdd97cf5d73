"""Connections that do not wait for ever, and not too many of them.

Invariant: a connection on which no request is being answered has a timer: for its first byte, for the rest of a
request's headers, for the next request. A request's body has one in `body.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from .http_limits import HttpLimits

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 with a bound on headers and on connections."""

    limits: ClassVar[HttpLimits]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.write(_TOO_MANY)
            transport.close()
        else:
            self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        super().data_received(data)
        if self._answering:
            self._stop_waiting()
        elif self._timer is None:  # the first bytes after a response
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        self._timer = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self._answering and not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()


def connections_with(limits: HttpLimits) -> type[TimedConnection]:
    """The class whose connections have these limits: uvicorn makes its instances."""
    return type("TimedConnection", (TimedConnection,), {"limits": limits})
