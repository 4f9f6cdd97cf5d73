"""A conversation as an agent is given it, in the words that its model reads.

Invariant: the model reads its own calls as it wrote them. Steps that a history leaves out are put back, and calls that
stand beside the words, which no model of ours wrote, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.tool_calls import TOOL
from ..core.trajectory import ConversationTurn
from .base import History
from .session import Message


def as_messages(turns: History) -> list[Message]:
    """What was said, with the steps that led to a turn where the history leaves them out.

    Raises:
        ConfigError: one is no message, its calls are no list, or they stand beside its words, in another model's form.
    """
    messages: list[Message] = []
    for turn in turns:
        steps = turn.steps if isinstance(turn, ConversationTurn) else []
        if steps and not (messages and messages[-1]["role"] == TOOL):
            messages += map(_message, steps)
        messages.append(_message(turn))
    return messages


def _message(turn: ConversationTurn | Mapping[str, Any]) -> Message:
    if isinstance(turn, ConversationTurn):
        # What was sampled has its calls in it, however they are spelled.
        message, calls = turn.to_message(), [call.name for call in turn.tool_calls if turn.span is None]
    elif isinstance(turn, Mapping) and {"role", "content"} <= turn.keys():
        message = {"role": turn["role"], "content": turn["content"]}
        made = turn.get("tool_calls") or ()
        if isinstance(made, str | Mapping) or not isinstance(made, Sequence):
            raise ConfigError(f"a message has the tool_calls {made!r:.60}; they must be a list of calls")
        calls = [_name(call) for call in made]
    else:
        raise ConfigError(f"a message is {turn!r}; it must be {{'role': ..., 'content': ...}}")
    unwritten = [name for name in calls if name not in (message["content"] or "")]
    if unwritten:
        raise ConfigError(
            f"a message calls {unwritten[0]!r} in its tool_calls and not in its content, which is all that the model "
            "reads; write the call into the content as the model does (see docs/tools.md), or pass the turns of "
            "process_turn"
        )
    return message


def _name(call: Any) -> str:
    """Of a call as `ConversationTurn.to_dict` writes it, or as OpenAI's interface does."""
    inner = call.get("function", call) if isinstance(call, Mapping) else {}
    return str(inner.get("name") if isinstance(inner, Mapping) else inner)
