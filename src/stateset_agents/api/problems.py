"""Errors on the wire: RFC 9457 on `/chat`, OpenAI's envelope on `/v1`.

Invariant: every error has a body of its door's one shape. None repeats what the client sent, and none shows a traceback
or a path of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.types import Scope, Send

from .errors import ServeError
from .refusals import MalformedJson, Unprocessable

PROBLEM_PAGE = "https://grpo-framework.readthedocs.io/serving#"
"""Where each kind of problem is described; its slug follows."""

OPENAI_DOOR = "/v1"

Headers = list[tuple[bytes, bytes]]


def wire_form(error: ServeError, path: str, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error, in the shape of the door that `path` belongs to."""
    openai = path == OPENAI_DOOR or path.startswith(f"{OPENAI_DOOR}/")
    body = envelope(error) if openai else problem(error, request_id)
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    kind = b"application/json" if openai else b"application/problem+json"
    headers = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
    more: Mapping[str, str] = getattr(error, "headers", {})
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(_seconds(error.retry_after)).encode()))
    if getattr(error, "close", False):
        headers.append((b"connection", b"close"))
    return openai_status(error) if openai else error.status, headers, data


def problem(error: ServeError, request_id: str) -> dict[str, Any]:
    """The body of RFC 9457."""
    body = {"type": PROBLEM_PAGE + error.slug, **error.to_dict(), "instance": request_id}
    if error.retry_after is not None:
        body["retry_after"] = _seconds(error.retry_after)
    return body


def envelope(error: ServeError) -> dict[str, Any]:
    """The body that OpenAI's clients read."""
    errors: Sequence[Mapping[str, Any]] = error.more.get("errors", ())
    told = "; ".join(f"{one['loc']}: {one['msg']}" if one["loc"] else str(one["msg"]) for one in errors)
    return {
        "error": {
            "message": told or error.detail,
            "type": _openai_type(error.status),
            "param": next((one["loc"] for one in errors if one["loc"]), None),
            "code": getattr(error, "code", None) or error.slug,
        }
    }


def openai_status(error: ServeError) -> int:
    """What is wrong with a request is 400 there, where RFC 9457's door says 422."""
    return 400 if error.status == 422 else error.status


def _openai_type(status: int) -> str:
    named = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return named.get(status, "invalid_request_error" if status < 500 else "server_error")


def _seconds(retry_after: float) -> int:
    return max(1, round(retry_after))


def from_validation(found: Sequence[Mapping[str, Any]]) -> ServeError:
    """The error of a body that does not fit its schema. The values that were given are left out."""
    if any(one.get("type") == "json_invalid" for one in found):
        return MalformedJson()
    unknown = bool(found) and all(one.get("type") == "extra_forbidden" for one in found)
    errors = [{"loc": place(one.get("loc", ())), "msg": _told(one)} for one in found[:20]]
    return Unprocessable(errors, "unknown_parameter" if unknown else "invalid_value")


def _told(found: Mapping[str, Any]) -> str:
    if found.get("type") == "extra_forbidden":
        return "this server knows no such parameter"
    if found.get("type") in ("literal_error", "none_required"):
        only = found.get("ctx", {}).get("expected", "null")
        return f"not supported; the only value that has an effect here is {only}"
    if found.get("type") == "union_tag_invalid":  # pydantic's words repeat what was sent
        return f"{found['ctx']['discriminator']} must be one of {found['ctx']['expected_tags']}"
    return str(found.get("msg", "it is wrong"))


_KINDS = ("assistant", "constrained-str", "developer", "str", "system", "tool", "user")
"""How pydantic names the members of a union, which a client never wrote."""


def place(loc: Iterable[Any]) -> str:
    """`("body", "messages", 0, "user", "content", "str")` as `messages[0].content`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "body" and not (text and (part in _KINDS or part.startswith("list["))):
            text += f".{part}" if text else part
    return text[:200]


async def answer(error: ServeError, scope: Scope, send: Send) -> None:
    """Send an error as the response."""
    status, headers, body = wire_form(error, scope["path"], scope.get("state", {}).get("request_id", ""))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})
