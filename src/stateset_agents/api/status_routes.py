"""What operators and their tools ask: health, liveness, readiness, metrics.

Invariant: these answer while the model is loading and while the server drains, and tell nothing of paths, prompts or
clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from .condition import Condition, Phase
from .metrics import TEXT, Metrics
from .responses import problems


class QueueLength(BaseModel):
    """Replies that are being made, and requests that wait for a place."""

    running: int
    waiting: int


class Health(BaseModel):
    """How the server is. `checks` says "ok", or what is wrong, of each part."""

    status: Literal["ok", "loading", "draining", "failing"]
    model: str
    policy_version: int | None
    reloads: int
    last_reload: str | None
    uptime_s: float
    active_conversations: int
    queue: QueueLength
    checks: dict[str, str]


class Alive(BaseModel):
    """The server runs."""

    status: Literal["alive", "stalled"]


class Ready(BaseModel):
    """Whether requests should come here, and why not."""

    status: Literal["ready", "not ready"]
    phase: Phase
    checks: dict[str, str]


def status_routes(
    condition: Condition, metrics: Metrics, active: Callable[[], int], queue: Callable[[], tuple[int, int]]
) -> APIRouter:
    """The routes.

    Args:
        condition: how the server is.
        metrics: its numbers.
        active: conversations under way.
        queue: replies being made, requests waiting.
    """
    router = APIRouter(tags=["status"])

    @router.get("/health", responses=_also(Health), response_model=Health)
    async def health() -> Response:
        """How the server is, for people."""
        findings = dict(await condition.findings())
        well = all(found == "ok" for found in findings.values())
        status = condition.phase if condition.phase != "ready" else "ok" if well else "failing"
        running, waiting = queue()
        body = Health(
            status=status,
            model=condition.model,
            policy_version=condition.version,
            reloads=condition.reloads,
            last_reload=condition.last_reload,
            uptime_s=round(time.time() - condition.since, 1),
            active_conversations=active(),
            queue=QueueLength(running=running, waiting=waiting),
            checks=findings,
        )
        return _told(body, status == "ok")

    @router.get("/livez", responses=_also(Alive), response_model=Alive)
    async def livez() -> Response:
        """Whether the server should be left running."""
        alive = await condition.alive()
        return _told(Alive(status="alive" if alive else "stalled"), alive)

    @router.get("/readyz", responses=_also(Ready), response_model=Ready)
    async def readyz() -> Response:
        """Whether requests should come here."""
        findings = dict(await condition.findings())
        ready = condition.ready(findings)
        body = Ready(status="ready" if ready else "not ready", phase=condition.phase, checks=findings)
        return _told(body, ready)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus' text form; JSON with Accept: application/json.",
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/json": {"schema": {"type": "object", "additionalProperties": {"type": "array"}}},
                },
            },
            **problems(401),
        },
    )
    async def numbers(request: Request) -> Response:
        """What the server counted and timed."""
        if "application/json" in request.headers.get("accept", "").lower():
            return JSONResponse(metrics.to_json())
        return Response(metrics.text(), media_type=None, headers={"Content-Type": TEXT})

    return router


def _told(body: BaseModel, well: bool) -> Response:
    headers = {"Cache-Control": "no-store"} if well else {"Cache-Control": "no-store", "Retry-After": "5"}
    return JSONResponse(body.model_dump(), status_code=200 if well else 503, headers=headers)


def _also(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The same body with 503, which says that it is not so well."""
    return {**problems(), 503: {"model": model, "description": "Not now."}}
