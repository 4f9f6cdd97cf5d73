"""The dashboard as an application: a page, its files, and a handful of questions that it asks.

Invariant: every route reads. A question that makes no sense is answered with 400 and what was expected, one about a run
or a step that is not there with 404; what a run folder holds never makes it 500.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from anyio import sleep, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..tracking.jsonl import to_line
from . import answers
from .access import Guard
from .conversations import Wanted
from .page_files import TYPES, page_files
from .runs import Run, RunLibrary

MOST_LISTENERS = 64
MOST_KEYS = 64
PULSE_SECONDS = 15.0
LOOK_SECONDS = 1.0


def create_app(library: RunLibrary, hosts: frozenset[str], *, closing: Callable[[], bool] = lambda: False) -> Guard:
    """The application.

    Args:
        library: the runs to show.
        hosts: Host headers that are answered.
        closing: whether the server is about to end, so that listeners are let go.
    """
    files = page_files()
    listeners = 0

    def page_file(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name].read_bytes(), media_type=TYPES[files[name].suffix])

    def run_of(request: Request) -> Run:
        name = request.query_params.get("run", "")
        run = library.run(name)
        if run is None:
            raise HTTPException(404, "there is no run of that name")
        return run

    def runs(_: Request) -> Response:
        return _json(answers.runs(library))

    def overview(request: Request) -> Response:
        return _json(answers.overview(run_of(request)))

    def series(request: Request) -> Response:
        keys = request.query_params.get("keys", "reward_mean").split(",")[:MOST_KEYS]
        found = answers.series(
            run_of(request),
            keys,
            first=_optional(request, "first"),
            last=_optional(request, "last"),
            points=_whole(request, "points", 600, least=2),
        )
        return _json(found)

    def step(request: Request) -> Response:
        return _found(answers.step(run_of(request), _whole(request, "step")), "step")

    def groups(request: Request) -> Response:
        asked = request.query_params
        wanted = Wanted(
            step=_optional(request, "step"),
            phase=asked.get("phase") or None,
            scenario=asked.get("scenario") or None,
            outcome=asked.get("outcome") or None,
            low=_number(request, "low"),
            high=_number(request, "high"),
        )
        start = _whole(request, "start", 0, least=0)
        return _json(answers.groups(run_of(request), wanted, start=start, newest_first=asked.get("order") == "newest"))

    def group(request: Request) -> Response:
        run = run_of(request)
        name = (_whole(request, "step"), request.query_params.get("phase", "train"), _whole(request, "group"))
        return _found(answers.group(run, name), "group")

    def config(request: Request) -> Response:
        return _json(answers.config(run_of(request)))

    def checkpoints(request: Request) -> Response:
        return _json(answers.checkpoints(run_of(request)))

    def verify(request: Request) -> Response:
        return _found(answers.verify(run_of(request), _whole(request, "step")), "checkpoint")

    async def events(request: Request) -> Response:
        nonlocal listeners
        run = await to_thread.run_sync(run_of, request)
        if listeners >= MOST_LISTENERS:
            raise HTTPException(503, "too many pages are open", {"Retry-After": "10"})

        async def changes() -> AsyncIterator[bytes]:
            nonlocal listeners
            listeners += 1
            try:
                known, spoken = None, time.monotonic()
                while not closing():
                    now = await to_thread.run_sync(answers.version, run)
                    if now != known:
                        yield b"data: " + json.dumps(now).encode() + b"\n\n"
                        known, spoken = now, time.monotonic()
                    elif time.monotonic() - spoken > PULSE_SECONDS:
                        yield b": still here\n\n"
                        spoken = time.monotonic()
                    await sleep(LOOK_SECONDS if now["complete"] else 0.02)
            finally:
                listeners -= 1

        return StreamingResponse(changes(), media_type="text/event-stream")

    questions = (runs, overview, series, step, groups, group, config, checkpoints, verify, events)
    routes = [Route(f"/api/{question.__name__}", question) for question in questions]
    routes += [Route("/", page_file), Route("/{name:path}", page_file)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, OSError: _gone})
    return Guard(app, hosts)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - that is what it is registered for
    return Response(
        json.dumps({"error": error.detail}), error.status_code, error.headers, media_type="application/json"
    )


def _gone(_: Request, error: Exception) -> Response:
    """A file went away, or closed itself, between two looks at it."""
    text = f"the run folder changed while it was read, or cannot be read: {getattr(error, 'strerror', None) or error}"
    return Response(json.dumps({"error": text}), 503, {"Retry-After": "1"}, media_type="application/json")


def _json(answer: dict[str, Any]) -> Response:
    return Response(to_line(answer), media_type="application/json")


def _found(answer: dict[str, Any] | None, what: str) -> Response:
    if answer is None:
        raise HTTPException(404, f"there is no such {what}")
    return _json(answer)


def _whole(request: Request, name: str, default: int | None = None, *, least: int = -(2**53)) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        number = int(text or "", 10) if len(text or "") < 20 else None
    except ValueError:
        number = None
    if number is None or not least <= number <= 2**53:
        raise HTTPException(400, f"{name} is a whole number" + (f", {least} or more" if least >= 0 else ""))
    return number


def _optional(request: Request, name: str) -> int | None:
    return _whole(request, name) if request.query_params.get(name) else None


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HTTPException(400, f"{name} is a number")
    return number
