"""The chat page at `/`: files that hold nothing of anybody, so that a browser may load them before it has a token.

Invariant: the page runs no code but these files, talks to no server but its own, and makes no HTML of what anybody
said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Response

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{f"/page/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("app", "server", "turns")},
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}

PAGE_PATHS = tuple(_FILES)
"""What needs no token."""

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def page_routes() -> APIRouter:
    """The routes; `PAGE_PATHS` are to be let in without a token."""
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in _FILES.items():
        router.add_api_route(path, _answering(name, media_type), methods=["GET"])
    return router


def _answering(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = (_FOLDER / name).read_bytes()

    async def file() -> Response:
        return Response(content, headers={**_HEADERS, "Content-Type": media_type})

    return file
