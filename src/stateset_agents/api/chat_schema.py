"""Bodies of requests and responses of `/chat`.

Invariant: a response has the documented fields; a request with others is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class StartRequest(BaseModel):
    """Who talks, and about what. Both may be left out."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"user_id": "user123"}]})

    user_id: str | None = Field(default=None, max_length=256)
    context: dict[str, Any] = Field(default_factory=dict)


class StartResponse(BaseModel):
    """A conversation that began; `message` is the assistant's greeting."""

    conversation_id: str
    status: Literal["started"]
    message: str


class MessageRequest(BaseModel):
    """What the user says."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, pattern=r"\S")
    stream: bool = Field(default=False, strict=True, description="Reply with server-sent events.")


class MessageResponse(BaseModel):
    """The reply. `turn_count` counts the assistant's turns, the greeting too."""

    conversation_id: str
    response: str
    turn_count: int
    status: Literal["ongoing", "ended"]


class HistoryTurn(BaseModel):
    """One turn. `steps` are the calls of tools and their results that led to it."""

    role: Literal["user", "assistant"]
    content: str
    timestamp: str
    steps: list[dict[str, Any]] | None = None


class Interruption(BaseModel):
    """A turn that was begun and lost when a server died; nothing of it is in the history."""

    after: int
    timestamp: str


class HistoryResponse(BaseModel):
    """A page of what was said."""

    conversation_id: str
    turns: list[HistoryTurn]
    status: Literal["ongoing", "ended", "expired"]
    interrupted: list[Interruption] | None = None


class EndResponse(BaseModel):
    """The conversation is over."""

    conversation_id: str
    status: Literal["ended", "expired"]
