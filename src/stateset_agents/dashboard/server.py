"""The dashboard as an application: a page, its files, and a handful of questions that it asks.

Invariant: every route reads, and what a run folder holds never makes an answer 500.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .access import Guard
from .changes import Changes
from .page_files import TYPES, page_files
from .questions import Questions
from .runs import RunLibrary


def create_app(library: RunLibrary, hosts: frozenset[str], *, closing: Callable[[], bool] = lambda: False) -> Guard:
    """The application.

    Args:
        library: the runs to show.
        hosts: Host headers that are answered.
        closing: whether the server is about to end, so that listeners are let go.
    """
    files = page_files()
    questions = Questions(library)
    changes = Changes(closing)

    def page_file(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name].read_bytes(), media_type=TYPES[files[name].suffix])

    async def events(request: Request) -> Response:
        run = await to_thread.run_sync(questions.run_of, request)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if changes.full:
            raise HTTPException(503, "too many pages are open", {"Retry-After": "10"})
        return StreamingResponse(changes.of(run), media_type="text/event-stream")

    routes = [Route(f"/api/{name}", question) for name, question in questions.all]
    routes += [Route("/api/events", events), Route("/", page_file), Route("/{name:path}", page_file)]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _refused, OSError: _gone}), hosts)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - that is what it is registered for
    return Response(
        json.dumps({"error": error.detail}), error.status_code, error.headers, media_type="application/json"
    )


def _gone(_: Request, error: Exception) -> Response:
    """A file went away, or closed itself, between two looks at it."""
    text = f"the run folder changed while it was read, or cannot be read: {getattr(error, 'strerror', None) or error}"
    return Response(json.dumps({"error": text}), 503, {"Retry-After": "1"}, media_type="application/json")
