"""The service as one ASGI application: routes, and around them what every request goes through.

Invariant: a request passes the layers in one order, whatever its route: CORS (so that a browser may read errors too),
id and count, host and origin, token, body and presence. All layers are plain ASGI: a stream passes them piece by piece,
and the client's leaving reaches the route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from .._version import __version__
from .access import PUBLIC, RequireToken, SameSite, Tokens
from .body import BodyGate
from .errors import ServeError
from .exchange import Exchange
from .http_limits import HttpLimits
from .metrics import Metrics
from .problems import from_validation, wire_form
from .refusals import Crashed, MalformedJson, MethodNotAllowed, NoSuchPath
from .responses import Problem

_METHODS = ("GET", "POST", "DELETE")


@dataclass(frozen=True)
class Door:
    """How requests come in.

    Attributes:
        tokens: that open the server; none let everybody in.
        hosts: names that a server without tokens goes by; None: any.
        origins: of web pages that may use the server.
        public: paths beside `/health`, `/livez` and `/readyz` that need no token.
        limits: of one request.
    """

    tokens: Tokens = field(default_factory=Tokens)
    hosts: frozenset[str] | None = None
    origins: Sequence[str] = ()
    public: Iterable[str] = ()
    limits: HttpLimits = field(default_factory=HttpLimits)


def create_app(
    routers: Iterable[APIRouter], metrics: Metrics, door: Door, draining: Callable[[], bool] = lambda: False
) -> ASGIApp:
    """The application.

    Args:
        routers: its routes.
        metrics: gets its counts.
        door: how requests come in.
        draining: whether the server is about to end, and connections with their next response.
    """
    inner = create_routes(routers)
    app: ASGIApp = BodyGate(inner, door.limits)
    app = RequireToken(app, door.tokens, {*PUBLIC, *door.public})
    if not door.tokens:
        app = SameSite(app, door.hosts, door.origins)
    app = Exchange(app, metrics, draining)
    if door.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(door.origins),
            allow_methods=_METHODS,
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
            expose_headers=["Idempotency-Replayed", "Location", "Retry-After", "X-Request-ID"],
            max_age=600,
        )
    return app


def create_routes(routers: Iterable[APIRouter]) -> FastAPI:
    """The routes alone, with their errors in the shapes of their doors."""
    app = FastAPI(
        title="GRPO Agent Framework",
        version=__version__,
        description="Conversations with a trained agent, and its model for clients of OpenAI's API.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in routers:
        app.include_router(router)

    async def refused(request: Request, error: Exception) -> Response:
        return _response(error if isinstance(error, ServeError) else _translated(error), request)

    for kind in (ServeError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refused)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _translated(error: Exception) -> ServeError:
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return NoSuchPath()
        if error.status_code == 405:
            return MethodNotAllowed((error.headers or {}).get("Allow", ""))
        if error.status_code == 400:
            return MalformedJson()
    return Crashed()  # starlette raises the error again, for `Exchange` to log


def _response(error: ServeError, request: Request) -> Response:
    status, headers, body = wire_form(error, request.scope["path"], request.state.request_id)
    response = Response(body if request.method != "HEAD" else b"", status)
    response.raw_headers = headers
    return response


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with what it cannot know of errors and tokens."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document["components"]["schemas"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**problem.pop("$defs"), "Problem": problem}
    schemes = {"token": {"type": "http", "scheme": "bearer"}}
    document["components"]["securitySchemes"] = schemes
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI's own 422, on routes that answer in another way.
            generated = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
            if generated.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"]["422"]
            operation["security"] = [] if path in PUBLIC else [{"token": []}]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    app.openapi_schema = document
    return document
