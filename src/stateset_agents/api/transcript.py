"""A turn of the agent as it is stored, and back.

Invariant: the history that an agent gets from the store is that of a rollout: the steps of a reply stand before it, and
its text is what the model wrote, whatever the user got to hear. The greeting is no part of it: conversations that are
learned from begin with the user.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..core.outcome import StopReason
from ..core.tool_calls import ToolCall, ToolError, ToolResult, spoken
from ..core.trajectory import ConversationTurn
from .store import StoredTurn

logger = logging.getLogger(__name__)


def stored_reply(turn: ConversationTurn, at: datetime) -> StoredTurn:
    """The assistant's turn, as it is kept."""
    data: dict[str, Any] = {}
    if turn.steps:
        data["steps"] = [step.to_dict() for step in turn.steps]
    if turn.metadata and _is_json(turn.metadata):
        data["metadata"] = turn.metadata
    if turn.stop_reason is not None:
        data["stop_reason"] = turn.stop_reason.value
    if turn.tool_calls:
        data["tool_calls"] = [call.to_dict() for call in turn.tool_calls]
    heard = spoken(turn)
    if heard != turn.content:
        data["sampled"] = turn.content
    return StoredTurn("assistant", heard, at, data)


def history_of(stored: Sequence[StoredTurn]) -> list[ConversationTurn]:
    """What the agent gets to see of a conversation."""
    first = next((place for place, turn in enumerate(stored) if turn.role == "user"), len(stored))
    return [turn for kept in stored[first:] for turn in _turns_of(kept)]


def _turns_of(kept: StoredTurn) -> Iterable[ConversationTurn]:
    data = kept.data
    for step in data.get("steps", ()):
        yield _turn(step, datetime.fromisoformat(step["timestamp"]))
    yield _turn({"role": kept.role, **data, "content": data.get("sampled", kept.content)}, kept.timestamp)


def _turn(data: Mapping[str, Any], at: datetime) -> ConversationTurn:
    reason, result = data.get("stop_reason"), data.get("tool_result")
    return ConversationTurn(
        data["role"],
        data["content"],
        metadata=dict(data.get("metadata", {})),
        timestamp=at,
        stop_reason=None if reason is None else StopReason(reason),
        tool_calls=tuple(ToolCall(call["name"], call["arguments"]) for call in data.get("tool_calls", ())),
        tool_result=None if result is None else _result(result),
    )


def _is_json(metadata: Mapping[str, Any]) -> bool:
    try:
        json.dumps(metadata)
    except (RecursionError, TypeError, ValueError) as error:
        logger.warning("metadata of a turn is not kept, as it is no JSON: %s", error)
        return False
    return True


def _result(data: Mapping[str, Any]) -> ToolResult:
    error = data.get("error")
    return ToolResult(
        data["name"], None if error is None else ToolError(error), data["seconds"], data.get("cut", False)
    )
