"""`/chat`: conversations that the server keeps.

Invariant: a reply's JSON is the documented one, and the last event of a stream holds the very same. Whatever the
service refuses is answered by the status and the problem document of its error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from ..core.trajectory import ConversationTurn
from .chat_schema import EndResponse, HistoryResponse, MessageRequest, MessageResponse, StartRequest, StartResponse
from .conversation_log import ConversationLog
from .conversations import Conversations
from .errors import ServeError
from .problems import problem
from .replies import Reply
from .responses import event_stream, problems
from .sse import EventStream, event, soon

PAGE = 1000
"""Turns of a history that one response holds at most."""

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
"""The same request under the same key is done once."""


def chat_routes(conversations: Conversations, log: ConversationLog | None = None) -> APIRouter:
    """The routes.

    Args:
        conversations: the service behind them.
        log: gets what is said.
    """
    router = APIRouter(prefix="/chat", tags=["conversations"])

    @router.post(
        "/start", response_model=StartResponse, responses=problems(400, 401, 408, 413, 415, 422, 429, 500, 503)
    )
    async def start(
        request: Request, response: Response, asked: StartRequest | None = None, idempotency_key: Key = None
    ) -> Any:
        """Start a conversation."""
        asked = asked or StartRequest()
        started = await conversations.start(asked.user_id, asked.context, _owner(request), idempotency_key)
        response.headers["Location"] = f"/chat/{started.conversation_id}"
        if started.replayed:
            response.headers["Idempotency-Replayed"] = "true"
        elif log is not None:
            log.write(
                "started",
                started.conversation_id,
                user_id=asked.user_id,
                context=asked.context,
                message=started.message,
            )
        return started.to_dict()

    @router.post(
        "/{conversation_id}/message",
        response_model=MessageResponse,
        responses={
            200: {
                "description": "The reply; with stream: true, the events delta, tool, done and error.",
                "content": event_stream("delta", "tool", "done", "error"),
            },
            **problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 429, 500, 503, 504),
        },
    )
    async def message(
        request: Request, conversation_id: str, asked: MessageRequest, idempotency_key: Key = None
    ) -> Response:
        """Say something, and get the reply."""
        asks = (conversation_id, asked.message, _owner(request), idempotency_key)
        client = request.state.client
        if asked.stream:
            pieces = await soon(conversations.stream(*asks, client=client))
            return EventStream(_events(_logged(log, asked.message, pieces), request.state.request_id))
        reply = await conversations.turn(*asks, client=client)
        _write(log, asked.message, reply)
        headers = {"Idempotency-Replayed": "true"} if reply.replayed else None
        return JSONResponse(reply.to_dict(), headers=headers)

    @router.get(
        "/{conversation_id}/history",
        response_model=HistoryResponse,
        response_model_exclude_none=True,
        responses=problems(401, 404, 422, 500, 503),
    )
    async def history(
        request: Request,
        conversation_id: str,
        after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Turns to leave out.")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE, description="Turns at most.")] = PAGE,
    ) -> Any:
        """What was said so far; also after the end."""
        return (await conversations.history(conversation_id, _owner(request), after, limit)).to_dict()

    @router.delete("/{conversation_id}", response_model=EndResponse, responses=problems(401, 404, 500, 503))
    async def end(request: Request, conversation_id: str) -> Any:
        """End a conversation. Doing it twice changes nothing."""
        ended = await conversations.end(conversation_id, _owner(request))
        if log is not None:
            log.write("ended", conversation_id, status=ended.status.value)
        return {"conversation_id": conversation_id, "status": ended.status.value}

    return router


def _owner(request: Request) -> str:
    return str(request.state.owner)


Pieces = AsyncGenerator[str | ConversationTurn | Reply, None]


async def _logged(log: ConversationLog | None, message: str, pieces: Pieces) -> Pieces:
    """The pieces; the reply is written to the log before anybody gets it."""
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Reply):
                _write(log, message, piece)
            yield piece


def _write(log: ConversationLog | None, message: str, reply: Reply) -> None:
    if log is not None and not reply.replayed:
        log.write(
            "turn",
            reply.conversation_id,
            turn_count=reply.turn_count,
            message=message,
            response=reply.response,
            steps=reply.steps,
        )


async def _events(pieces: Pieces, request_id: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield event({"text": piece}, "delta")
                elif isinstance(piece, Reply):
                    yield event(piece.to_dict(), "done")
                else:
                    yield event(piece.to_dict(), "tool")
        except ServeError as error:
            yield event(problem(error, request_id), "error")
