"""How much of everything the service gives.

Invariant: nothing that a client can make grow is unbounded.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .http_limits import HttpLimits


@dataclass(frozen=True)
class ServeLimits:
    """Bounds of the service.

    Attributes:
        max_conversations: conversations under way in this process.
        idle_seconds: after which a conversation that nobody writes to expires. A running turn never expires.
        keep_seconds: after which a conversation that is over is deleted.
        max_running: turns that are answered at once.
        max_waiting: turns that wait for a place among those, or for their conversation's last turn.
        turn_wait: seconds that a message waits for its conversation's last turn; 0 refuses it at once.
        turn_seconds: of wall time for a turn, its waiting included.
        max_turns: messages of the user in one conversation; the last one's reply ends it.
        message_characters: of one message.
        context_characters: of the JSON of a conversation's context, and of its user's id.
        max_new_tokens: of one reply, whatever the agent's own setting; None leaves that.
        kept_forks: conversations whose agent's fork, and with it the engine's cache, is kept between turns.
        fork_tokens: of all rows of a fork, beyond which it is let go.
        context_instructs: whether what a client gives as context goes into the system prompt. Otherwise only the code
            of an agent sees it, as `context["client"]`.
    """

    max_conversations: int = 100
    idle_seconds: float = 1800.0
    keep_seconds: float = 7 * 86400.0
    max_running: int = 32
    max_waiting: int = 128
    turn_wait: float = 0.0
    turn_seconds: float = 120.0
    max_turns: int = 200
    message_characters: int = 16_384
    context_characters: int = 16_384
    max_new_tokens: int | None = None
    kept_forks: int = 100
    fork_tokens: int = 65_536
    context_instructs: bool = False

    def __post_init__(self) -> None:
        require_bounds(self, ("kept_forks", "max_waiting", "turn_wait"))


def require_bounds(limits: ServeLimits | HttpLimits, may_be_0: Container[str] = ()) -> None:
    """Refuse what bounds nothing: a default says whether a number is whole, and whether there may be none.

    Raises:
        ConfigError: each value that is no such number.
    """
    problems = []
    for f in fields(limits):
        value = getattr(limits, f.name)
        if isinstance(f.default, bool) or (value is None and f.default is None):
            continue
        whole, nothing = not isinstance(f.default, float), f.name in may_be_0
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= MOST or (value == 0 and not nothing):
            bound = f"from 0 to {MOST}" if nothing else f"from 1 to {MOST}" if whole else f"above 0, to {MOST}"
            problems.append(f"{f.name} is {value!r}; it must be a {'whole ' if whole else ''}number {bound}")
    if problems:
        raise ConfigError(*problems)


MOST = 10**9
"""Of anything: seconds up to here are dates that exist, numbers up to here are some that memory may hold."""
