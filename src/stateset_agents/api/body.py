"""A request's body: read whole within its bounds, and while the answer is made, whether the client is still there.

Invariant: the application sees a body that is complete, small enough and, if it is JSON, well-formed and no deeper or
wider than allowed; and it stops working within moments of its client's leaving.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ServeError
from .http_limits import HttpLimits
from .problems import answer
from .refusals import BodyTooLarge, JsonTooLarge, MalformedJson, NotJson, SlowRequest, Unprocessable

_LINGER_SECONDS = 1.0
"""For a client to finish sending what is too long: one that is still sending does not see the answer."""

_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


class _Gone(Exception):
    """The client left before its request was whole."""


class BodyGate:
    """ASGI middleware: bounds the body, and cancels the application when the client leaves.

    Args:
        app: what is behind it.
        limits: the bounds.
    """

    def __init__(self, app: ASGIApp, limits: HttpLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        try:
            body = await self._read(scope, receive)
            self._check(scope, body)
        except _Gone:
            scope["state"]["client_gone"] = True
            return
        except ServeError as error:
            await answer(error, scope, send)
            return
        await _while_present(self._app, scope, body, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            ServeError: it is too long or too slow.
        """
        limit, seconds = self._limits.body_bytes, self._limits.body_seconds
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                declared = Headers(scope=scope).get("content-length", "0")
                async for part in _parts(receive):
                    size += len(part)
                    if size > limit or (declared.isdecimal() and int(declared) > limit):
                        break
                    parts.append(part)
                else:
                    return b"".join(parts)
        except TimeoutError:
            raise SlowRequest(f"the body did not arrive within {seconds:g} s") from None
        await _let_it_finish(receive, 4 * limit)
        raise BodyTooLarge(f"a body may have {limit} bytes at most")

    def _check(self, scope: Scope, body: bytes) -> None:
        """Refuse a body that is no JSON, or JSON out of all measure.

        Raises:
            ServeError: it is.
        """
        if not body:
            return
        if not _JSON.fullmatch(Headers(scope=scope).get("content-type", "")):
            raise NotJson
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
        except RecursionError:
            raise self._too("levels", self._limits.json_depth) from None
        except ValueError:
            raise MalformedJson from None
        for number, (depth, one) in enumerate(_values(value), start=1):
            if depth > self._limits.json_depth:
                raise self._too("levels", self._limits.json_depth)
            if number > self._limits.json_values:
                raise self._too("values", self._limits.json_values)
            if isinstance(one, str):
                self._check_text(one)

    def _check_text(self, text: str) -> None:
        if len(text) > self._limits.text_characters:
            raise self._too("characters in one text", self._limits.text_characters)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unprocessable(
                [{"loc": "", "msg": "a text holds half of a surrogate pair, which is no character"}]
            ) from None

    def _too(self, what: str, limit: int) -> ServeError:
        return JsonTooLarge(f"the body's JSON may have {limit} {what} at most")


async def _parts(receive: Receive) -> Any:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _let_it_finish(receive: Receive, most: int) -> None:
    """Read and drop what a client still sends, for a moment."""
    dropped = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for part in _parts(receive):
                dropped += len(part)
                if dropped > most:
                    return
    except TimeoutError:
        return


async def _while_present(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run the application until it is done or its client has gone."""
    task = asyncio.current_task()
    answered = gone = given = False

    async def give() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def noted(message: Message) -> None:
        nonlocal answered
        answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
        await send(message)

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        if not answered and task is not None:
            gone = True
            scope["state"]["client_gone"] = True
            task.cancel("the client has gone")

    watcher = asyncio.create_task(watch())
    try:
        await app(scope, give, noted)
    except asyncio.CancelledError:
        if not gone or task is None or task.uncancel():
            raise
    finally:
        watcher.cancel()


def _values(value: Any) -> Iterator[tuple[int, Any]]:
    """Depth and value of everything in a document, keys included."""
    waiting = [(1, value)]
    while waiting:
        depth, one = waiting.pop()
        yield depth, one
        if isinstance(one, dict):
            waiting.extend((depth + 1, inner) for pair in one.items() for inner in pair)
        elif isinstance(one, list):
            waiting.extend((depth + 1, inner) for inner in one)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two readers of one with a repeated key may see two different ones."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
