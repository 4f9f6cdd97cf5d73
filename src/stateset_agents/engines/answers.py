"""What a chat server answers, read strictly.

Invariant: text that is returned is text that the model said, whole and writable as UTF-8. Anything else has a reason.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any


class Refused(Exception):
    """The server will say the same if it is asked again."""


class Unsent(Refused):
    """The server was not asked: what it must be sent is not there."""


class Transient(Exception):
    """A failure that may pass.

    Attributes:
        retry_after: seconds that the server wants to be left alone; None if it named none.
        fault: whether it is the service's failure, or it is merely busy or had nothing to say.
        busy: whether it is too busy to answer at all.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, fault: bool = True, busy: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after, self.fault, self.busy = retry_after, fault, busy


class BadAnswer(Exception):
    """Not the answer of a chat model.

    Attributes:
        fault: False for one that is well-formed, and empty.
    """

    def __init__(self, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason)
        self.fault = fault


def read_answer(content: bytes) -> str:
    """The text of a chat completion.

    Raises:
        BadAnswer: there is none.
    """
    try:
        data: Any = json.loads(content.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is no JSON: {error}") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise BadAnswer(f"the answer has no choices: {_shown(data)}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or "content" not in message:
        raise BadAnswer(f"the answer's first choice has no message with content: {_shown(choice)}")
    text = message["content"]
    why = f" (finish_reason {choice.get('finish_reason')!r:.40})"
    if text is not None and not isinstance(text, str):
        raise BadAnswer(f"the answer's content is {_shown(text)}, which is no text")
    if text is None or not text.strip():
        raise BadAnswer(f"the answer's content is empty{why}", fault=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadAnswer("the answer holds half of a surrogate pair, which is no character") from None
    return text


def refusal(status: int, said: str, wait: str | None) -> Transient | Refused:
    """What an answer with another status than 200 means.

    Args:
        status: of HTTP.
        said: the answer's text, as it may be repeated.
        wait: its Retry-After header.
    """
    text = f"the server answered {status}" + (f": {said}" if said else "")
    if status in (408, 409, 429) or status >= 500:
        return Transient(text, retry_after=retry_after(wait), fault=status != 429, busy=status == 429)
    if 300 <= status < 400:
        text = f"the server answered {status}, a redirect, which is not followed: name the address it leads to"
    return Refused(text)


def retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None where it says nothing."""
    if value is None:
        return None
    if value.strip().replace(".", "", 1).isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _shown(value: object) -> str:
    return f"{value!r:.100}"
