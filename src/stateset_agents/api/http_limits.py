"""How much one request may take.

Invariant: every size that a client chooses has a bound that is checked before the work begins, so that no request costs
more memory or time than these numbers say.
"""

from __future__ import annotations

from dataclasses import dataclass

from .limits import require_bounds


@dataclass(frozen=True)
class HttpLimits:
    """Bounds of requests and connections.

    Attributes:
        body_bytes: of a request's body, counted as they arrive.
        json_depth: levels of objects and lists in it.
        json_values: numbers, texts, objects and lists in it.
        text_characters: of one text in it.
        header_seconds: from a connection's first byte to the end of a request's headers, and to its first byte.
        body_seconds: for the whole body to arrive.
        idle_seconds: that a connection is kept between two requests.
        connections: open at once; more are closed at once.
        new_tokens: of one reply to a chat completion request, whatever the client asks.
    """

    body_bytes: int = 1_048_576
    json_depth: int = 32
    json_values: int = 20_000
    text_characters: int = 200_000
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 75.0
    connections: int = 2048
    new_tokens: int = 4096

    def __post_init__(self) -> None:
        require_bounds(self)
