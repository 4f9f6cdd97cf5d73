"""What a client may be told: one class for each case.

Invariant: whatever goes wrong in a request becomes one of these before it leaves the service. A message names what to
do, and never repeats what the client sent, a path or a stack trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from ..core.errors import StatesetError


class ServeError(StatesetError):
    """Base of them all.

    Args:
        detail: one sentence for this occurrence.
        retry_after: seconds after which the same request may succeed; None: not by waiting.
        more: members of the problem document beside the standard ones (RFC 9457).

    Attributes:
        status: of HTTP.
        slug: stable name of the case; ends the problem's `type`.
        title: of the case.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, retry_after: float | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.more: Mapping[str, Any] = more

    def to_dict(self) -> dict[str, Any]:
        """The problem document, without `type` and `instance`, which are the transport's."""
        data = {"title": self.title, "status": self.status, "detail": self.detail, **self.more}
        return data if self.retry_after is None else {**data, "retry_after": self.retry_after}


class UnknownConversation(ServeError):
    """No conversation of this owner has this id."""

    status, slug, title = 404, "unknown-conversation", "There is no such conversation"

    def __init__(self) -> None:
        super().__init__("there is no conversation with this id; POST /chat/start begins one")


class ConversationOver(ServeError):
    """The conversation was ended or has expired.

    Args:
        reason: "ended", "expired" or "turn_limit".
        at: when.
    """

    status, slug, title = 410, "conversation-over", "The conversation is over"

    def __init__(self, reason: str, at: datetime) -> None:
        how = {
            "ended": "was ended",
            "expired": "expired, as nothing was said for too long,",
            "turn_limit": "had as many turns as a conversation may have, and ended",
        }[reason]
        when = at.isoformat(timespec="seconds").replace("+00:00", "Z")
        super().__init__(f"the conversation {how} at {when}; POST /chat/start begins another", reason=reason, at=when)
        self.reason, self.at = reason, at


class TurnRunning(ServeError):
    """The conversation's last message is still being answered."""

    status, slug, title = 409, "turn-running", "A turn is running"


class TooManyConversations(ServeError):
    """As many conversations as are allowed are under way."""

    status, slug, title = 429, "too-many-conversations", "Too many conversations"


class QueueFull(ServeError):
    """As many turns as may wait are waiting."""

    status, slug, title = 429, "queue-full", "Too many turns are waiting"


class KeyReused(ServeError):
    """The idempotency key belongs to a turn with another message."""

    status, slug, title = 422, "key-reused", "The idempotency key was used for something else"


class InvalidRequest(ServeError):
    """The request says something that cannot be."""

    status, slug, title = 422, "invalid-request", "The request is not valid"


class TooLong(ServeError):
    """A text of the client is longer than it may be."""

    status, slug, title = 422, "too-long", "The request is too long"


class ConversationTooLong(ServeError):
    """The conversation does not fit into the model's context any more."""

    status, slug, title = 422, "context-full", "The model's context is full"


class Unavailable(ServeError):
    """The service is loading, or about to stop."""

    status, slug, title = 503, "unavailable", "The server does not take requests now"


class StoreFailed(ServeError):
    """What was said could not be stored, so it was not said."""

    status, slug, title = 503, "store-failed", "Conversations cannot be stored"


class TurnTimeout(ServeError):
    """The reply took longer than it may."""

    status, slug, title = 504, "turn-timeout", "The reply took too long"


class TurnFailed(ServeError):
    """The agent's code, its engine or a tool's world broke."""

    status, slug, title = 500, "turn-failed", "The agent could not answer"


class OutOfMemory(TurnFailed):
    """There was no memory for this reply."""

    status, slug, title = 503, "out-of-memory", "The server has no memory for this now"


class TurnCancelled(ServeError):
    """The turn was cut short by somebody else: the conversation's end, or the server's."""

    status, slug, title = 503, "turn-cancelled", "The turn was cut short"
