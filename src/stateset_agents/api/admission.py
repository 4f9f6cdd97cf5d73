"""What a client may send.

Invariant: a request that passes here can be stored, rendered and repeated; one that does not is refused before anything
is made for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import InvalidRequest, TooLong
from .limits import ServeLimits

LONGEST_KEY = 255


def check_message(message: object, limits: ServeLimits) -> str:
    """The message, if it is one.

    Raises:
        InvalidRequest, TooLong: it is none.
    """
    if not isinstance(message, str) or not message.strip():
        raise InvalidRequest("the message is empty; say something")
    if len(message) > limits.message_characters:
        raise TooLong(f"the message has {len(message)} characters; at most {limits.message_characters} are taken")
    try:
        message.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the message holds half of a surrogate pair, which is no character") from None
    return message


def check_key(key: str | None) -> None:
    """Refuse what is no idempotency key.

    Raises:
        InvalidRequest: it is none.
    """
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"an idempotency key has 1 to {LONGEST_KEY} printable ASCII characters")


def check_context(user_id: str | None, context: Mapping[str, Any] | None, limits: ServeLimits) -> None:
    """Refuse a context that is no JSON object, or with the user's id too long.

    Raises:
        InvalidRequest, TooLong: it is.
    """
    if not (user_id is None or isinstance(user_id, str)) or not (context is None or isinstance(context, Mapping)):
        raise InvalidRequest("user_id must be a text, and context a JSON object")
    try:
        size = len(json.dumps([user_id, dict(context or {})], allow_nan=False))
    except (RecursionError, TypeError, ValueError):
        raise InvalidRequest("the context is no JSON object, or too deep") from None
    if size > limits.context_characters:
        raise TooLong(f"context and user_id have {size} characters as JSON; at most {limits.context_characters} count")


def told_to_the_agent(user_id: str | None, context: Mapping[str, Any], limits: ServeLimits) -> dict[str, Any]:
    """What `process_turn` gets as its context: `client` for the agent's code, and no instruction unless allowed."""
    told: dict[str, Any] = {"client": {"user_id": user_id, "context": dict(context)}}
    if limits.context_instructs and context:
        told["agent_context"] = "\n".join(
            f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in context.items()
        )
    return told
