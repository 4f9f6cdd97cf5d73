"""What of a long conversation the model gets to see.

Invariant: what is shown is a function of the conversation alone, so that playing it again shows the same. The newest
messages, those that the reply answers, are always shown; what is left out is left out from the beginning.

A chat template wants a user first, so a window that would begin with anything else begins with the next user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Message = Mapping[str, str]

STRIDE = 8
"""Messages that leave at once where the context decides: a cut in every turn would open a row in every turn."""
NOTES = 12
"""Of the messages that left, how many are still told of."""
NOTE_LENGTH = 120
"""Characters of a message in a note."""


def since_the_user(messages: Sequence[Message]) -> int:
    """How many messages there are from the last of the user on; all, where there is none."""
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
    return len(messages) - last


def first_in_window(messages: Sequence[Message], window: int | None, fresh: int) -> int:
    """Place of the first message that is shown.

    Args:
        messages: the conversation, without the system prompt.
        window: messages of the history that are shown; None: all.
        fresh: newest messages that are no history.
    """
    history = len(messages) - fresh
    if window is None or history <= window:
        return 0
    return _next_user(messages, history - window, history)


def first_that_fits(messages: Sequence[Message], first: int, fresh: int, fits: Callable[[int], bool]) -> int:
    """Place of the first message that is shown so that the prompt fits into the context.

    Args:
        messages: the conversation, without the system prompt.
        first: the first one that may be shown.
        fresh: newest messages that are always shown.
        fits: whether the prompt that begins with this message does.
    """
    history = len(messages) - fresh
    while first < history and not fits(first):
        first = _next_user(messages, min(first - first % STRIDE + STRIDE, history), history)
    return first


def notes_of(left_out: Sequence[Message]) -> str:
    """The beginnings of messages that are not shown any more, one line each; "" if there are none."""
    if not left_out:
        return ""
    lines = [f"{message['role']}: {_beginning(message['content'])}" for message in left_out[-NOTES:]]
    return "\n".join(["Earlier in this conversation:", *lines])


def _next_user(messages: Sequence[Message], place: int, end: int) -> int:
    return next((at for at in range(place, end) if messages[at]["role"] == "user"), end)


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= NOTE_LENGTH else words[:NOTE_LENGTH].rpartition(" ")[0] + " ..."
