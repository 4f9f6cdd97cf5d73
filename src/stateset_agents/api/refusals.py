"""What HTTP itself has to say against a request, before anybody looks at what it asks for.

Invariant: as in `errors`: one class for each case, and no words of the client in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .errors import InvalidRequest, ServeError


class Refusal(ServeError):
    """Base of them.

    Attributes:
        headers: further ones of the response.
        close: end the connection too, as the request was not read to its end.
        code: what `/v1` calls the case, where that is not `slug`.
    """

    headers: Mapping[str, str] = {}
    close: ClassVar[bool] = False
    code: ClassVar[str | None] = None


class MalformedJson(Refusal):
    """The body is no JSON."""

    status, slug, title = 400, "malformed-json", "The body is no valid JSON"

    def __init__(self) -> None:
        super().__init__("the body must be one JSON value in UTF-8, in which no object has a key twice")


class Unauthorized(Refusal):
    """There is no token, or a wrong one."""

    status, slug, title = 401, "unauthorized", "A token is needed"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}
    close, code = True, "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("send the header Authorization: Bearer TOKEN, with a token that this server knows")


class ForeignOrigin(Refusal):
    """A page of another site asks."""

    status, slug, title = 403, "foreign-origin", "Pages of this site may not do that"
    close = True

    def __init__(self) -> None:
        super().__init__("a page of another site may not change anything here; --cors-origins names those that may")


class NoSuchPath(Refusal):
    """Nothing is there."""

    status, slug, title = 404, "no-such-path", "There is nothing at this path"

    def __init__(self) -> None:
        super().__init__("there is nothing at this path; /openapi.json lists what there is")


class NoSuchModel(Refusal):
    """Another model is served."""

    status, slug, title = 404, "no-such-model", "There is no such model"
    code = "model_not_found"

    def __init__(self, known: str) -> None:
        super().__init__(f"this server has one model: {known}")


class MethodNotAllowed(Refusal):
    """The path does something else."""

    status, slug, title = 405, "method-not-allowed", "This path does not take this method"

    def __init__(self, allow: str) -> None:
        super().__init__("this path takes other methods; the header Allow names them")
        self.headers = {"Allow": allow}


class SlowRequest(Refusal):
    """The body did not arrive."""

    status, slug, title = 408, "request-timeout", "The request took too long to arrive"
    close = True


class BodyTooLarge(Refusal):
    """The body is too long."""

    status, slug, title = 413, "body-too-large", "The body is too large"
    close = True


class NotJson(Refusal):
    """The body is something else."""

    status, slug, title = 415, "unsupported-media-type", "The body must be JSON"

    def __init__(self) -> None:
        super().__init__("send the header Content-Type: application/json, and JSON")


class UnknownHost(Refusal):
    """The server is called by a name that is not its own."""

    status, slug, title = 421, "unknown-host", "This server has another name"
    close = True

    def __init__(self) -> None:
        super().__init__("the Host header names another server; this one has no token, and goes by localhost alone")


class Unprocessable(InvalidRequest):
    """Parts of the request are wrong.

    Args:
        errors: where and what.
        code: what `/v1` calls it.
    """

    def __init__(self, errors: Sequence[Mapping[str, Any]], code: str = "invalid_value") -> None:
        super().__init__("the request is not valid", errors=[dict(one) for one in errors])
        self.code = code


class JsonTooLarge(Refusal):
    """The JSON is out of all measure."""

    status, slug, title = 422, "json-too-large", "The body has too much in it"


class Crashed(Refusal):
    """Nobody foresaw this."""

    def __init__(self) -> None:
        super().__init__("the server failed; its log has the details under this request's id")
