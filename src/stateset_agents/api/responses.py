"""What a route may answer with besides its success, for the OpenAPI document.

Invariant: a status that a client can meet is declared with the body that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

MEANINGS = {
    400: "The body is no valid JSON, or the request cannot be done.",
    401: "There is no token, or a wrong one.",
    403: "A page of another site asks for a change.",
    404: "There is no such thing, or it belongs to another token.",
    408: "The body took too long to arrive.",
    409: "The conversation's last message is still being answered.",
    410: "The conversation was ended, or expired.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    421: "The Host header names another server.",
    422: "The request is not valid, or something in it is too long.",
    429: "There is no room now; Retry-After says when to try again.",
    500: "The server failed; its log has the details under the request's id.",
    503: "The server is loading, stopping, or cannot store what is said.",
    504: "The reply took longer than it may.",
}


class Wrong(BaseModel):
    """A part of the request that is wrong."""

    loc: str
    msg: str


class Problem(BaseModel):
    """The body of an error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    retry_after: int | None = None
    errors: list[Wrong] | None = None


def declared(model: type[BaseModel], media_type: str) -> Callable[..., dict[int | str, dict[str, Any]]]:
    """A function that declares statuses with this body."""

    def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
        every = sorted({*statuses, 403, 421})  # a browser's page is kept out wherever it asks
        if media_type == "application/json":
            return {status: {"description": MEANINGS[status], "model": model} for status in every}
        schema = {"$ref": f"#/components/schemas/{model.__name__}"}
        return {
            status: {"description": MEANINGS[status], "content": {media_type: {"schema": schema}}} for status in every
        }

    return responses


problems = declared(Problem, "application/problem+json")


def event_stream(*names: str) -> dict[str, Any]:
    """The media type of a stream whose events have these names."""
    properties: dict[str, Any] = {"data": {"type": "string"}}
    if names:
        properties["event"] = {"enum": list(names)}
    return {"text/event-stream": {"schema": {"type": "object", "properties": properties, "required": list(properties)}}}
