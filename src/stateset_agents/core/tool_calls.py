"""What passes between an agent and its tools: a call, and how it went.

Invariant: a call is something that the model sampled and that was read strictly; a result is what a tool, or whoever
refused to run it, said. Both stay in the conversation: the call as an assistant turn, the result as a turn with the
role "tool" that the model reads and is never trained on.

The assistant turns of a conversation are of two kinds. A *reply* is what the user gets to hear; a turn that a tool
answers is a step on the way to one. Whether it is one shows in the order of the turns alone, so that it holds for turns
that were read from a file as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

TOOL = "tool"
"""Role of a turn that holds what a tool said."""


class ToolError(StrEnum):
    """Why a call has no value to give. The model is told, and may try again."""

    MALFORMED = "malformed_call"
    """What the model wrote is no call."""
    UNKNOWN_TOOL = "unknown_tool"
    """There is no tool of that name."""
    BAD_ARGUMENTS = "bad_arguments"
    """The arguments do not fit the tool's parameters."""
    FAILED = "tool_failed"
    """The tool raised."""
    TIMEOUT = "timeout"
    """The tool took longer than it may."""
    BUDGET = "budget"
    """The agent has made as many calls as it may make in one turn. Further ones of the same turn get no answer."""


@dataclass(frozen=True)
class ToolCall:
    """A tool's name and its arguments by name, as the model wrote them."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class ToolResult:
    """How a call went; what it gave is the content of its turn.

    Attributes:
        name: of the tool; "" where the model named none.
        error: why there is no value; None if there is one.
        seconds: that the call took.
        cut: whether the content is shorter than what the tool gave.
    """

    name: str
    error: ToolError | None = None
    seconds: float = field(default=0.0, compare=False)
    cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether the tool gave a value."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        data: dict[str, Any] = {"name": self.name, "ok": self.ok, "seconds": round(self.seconds, 4)}
        if self.error is not None:
            data["error"] = self.error.value
        if self.cut:
            data["cut"] = True
        return data


class _Spoken(Protocol):
    @property
    def role(self) -> str: ...


_Turn = TypeVar("_Turn", bound=_Spoken)


def replies_at(turns: Sequence[_Spoken]) -> list[int]:
    """Places of the assistant turns that the user gets to hear: those that no tool answers."""
    return [
        place
        for place, turn in enumerate(turns)
        if turn.role == "assistant" and not (place + 1 < len(turns) and turns[place + 1].role == TOOL)
    ]


def spoken(turn: Any) -> str:
    """What the user hears of a reply: nothing of one that is calls which were not made."""
    return "" if getattr(turn, "tool_calls", ()) else str(turn.content)


def replies(turns: Iterable[_Turn]) -> list[_Turn]:
    """The assistant turns that the user gets to hear, in order."""
    turns = list(turns)
    return [turns[place] for place in replies_at(turns)]
