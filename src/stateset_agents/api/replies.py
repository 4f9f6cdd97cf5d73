"""What clients are told when all went well, in the documented JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .store import Attempt, StoredTurn


@dataclass(frozen=True)
class Started:
    """A conversation that began; `replayed` if an earlier request with the same idempotency key began it."""

    conversation_id: str
    message: str
    status: str = "started"
    replayed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON."""
        return {"conversation_id": self.conversation_id, "status": self.status, "message": self.message}


@dataclass(frozen=True)
class Reply:
    """The answer to a message.

    Attributes:
        conversation_id, response, turn_count, status: as documented; the status is "ended" for the last reply that a
            conversation may have.
        finish_reason: "stop", or "length" for a reply that was cut.
        steps: calls of tools and what the tools said, on the way to it.
        replayed: whether it is the stored reply to an earlier request with the same idempotency key.
    """

    conversation_id: str
    response: str
    turn_count: int
    status: str
    finish_reason: str = "stop"
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    replayed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON."""
        return {
            "conversation_id": self.conversation_id,
            "response": self.response,
            "turn_count": self.turn_count,
            "status": self.status,
        }

    def record(self) -> dict[str, Any]:
        """What is stored for a repetition of the request."""
        return {**self.to_dict(), "finish_reason": self.finish_reason, "steps": self.steps}


@dataclass(frozen=True)
class History:
    """What was said.

    Attributes:
        conversation_id: of which.
        turns: a page of it.
        status: "ongoing", "ended" or "expired".
        total: turns that there are.
        interrupted: turns that were begun and lost when a server died: when, and after how many turns.
    """

    conversation_id: str
    turns: list[StoredTurn]
    status: str
    total: int
    interrupted: list[Attempt] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON; steps and interruptions are in it where there were any."""
        turns: list[dict[str, Any]] = []
        for turn in self.turns:
            turns.append({"role": turn.role, "content": turn.content, "timestamp": _iso(turn.timestamp)})
            if turn.data.get("steps"):
                turns[-1]["steps"] = turn.data["steps"]
        data: dict[str, Any] = {"conversation_id": self.conversation_id, "turns": turns, "status": self.status}
        if self.interrupted:
            data["interrupted"] = [{"after": a.after, "timestamp": _iso(a.begun_at)} for a in self.interrupted]
        return data


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
