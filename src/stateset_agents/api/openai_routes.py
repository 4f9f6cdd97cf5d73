"""`/v1`: the agent's model for clients of OpenAI's chat completions.

Invariant: a request is whole or refused with OpenAI's error envelope; a stream's finish reason is null until its last
piece, its usage follows in a piece without choices, and `data: [DONE]` is its last line unless it failed.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ..core.tool_calls import ToolCall
from .completions import Begun, Completions, Ended, Event, Piece, Token
from .errors import ServeError
from .openai_schema import Completion, CompletionRequest, ModelCard, ModelList, OpenAIEnvelope
from .problems import envelope
from .refusals import NoSuchModel
from .responses import declared, event_stream
from .sse import EventStream, event, soon

_STREAM = event_stream()


def openai_routes(completions: Completions, model: str, since: float) -> APIRouter:
    """The routes.

    Args:
        completions: answers the requests.
        model: name of the model that is served.
        since: when the server was started, which `created` of its model says.
    """
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    errors = declared(OpenAIEnvelope, "application/json")

    @router.get("/models", responses=errors(401))
    async def models() -> ModelList:
        """The model that is served."""
        return ModelList(data=[_card(model, since)])

    @router.get("/models/{name:path}", responses=errors(401, 404))
    async def one_model(name: str) -> ModelCard:
        """The model that is served, by its name."""
        if name != model:
            raise NoSuchModel(model)
        return _card(model, since)

    @router.post(
        "/chat/completions",
        response_model=Completion,
        responses={
            200: {"description": "The reply, or with stream: true its pieces.", "content": _STREAM},
            **errors(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
        },
    )
    async def chat_completions(request: CompletionRequest, http: Request) -> Response:
        """Reply to a conversation that the request holds. Tools are offered, and their calls are returned, not made."""
        if request.model != model:
            raise NoSuchModel(model)
        events = completions.events(request, http.state.client)
        if not request.stream:
            return JSONResponse(await _whole(model, events))
        usage = request.stream_options is not None and request.stream_options.include_usage
        return EventStream(_stream(model, await soon(events), usage=usage))

    return router


def _card(model: str, since: float) -> ModelCard:
    return ModelCard(id=model, created=int(since))


class Reply:
    """The parts that every piece of a response has.

    Args:
        model: its name.
        begun: what is asked of whom.
    """

    def __init__(self, model: str, begun: Begun) -> None:
        self.ask = begun.ask
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"fp_{begun.runtime.engine.version}",
        }

    def head(self, kind: str) -> dict[str, Any]:
        """Of a response, or of a piece of one."""
        return {"object": kind, **self._head}


async def _begun(model: str, events: AsyncGenerator[Event, None]) -> Reply:
    begun = await anext(events)
    assert isinstance(begun, Begun)  # noqa: S101 - the first event, for the type checker
    return Reply(model, begun)


async def _whole(model: str, source: AsyncGenerator[Event, None]) -> dict[str, Any]:
    async with aclosing(source) as events:
        reply = await _begun(model, events)
        choices = len(reply.ask.requests)
        texts: list[str] = [""] * choices
        tokens: list[list[Token]] = [[] for _ in range(choices)]
        ends: dict[int, Ended] = {}
        async for one in events:
            if isinstance(one, Piece):
                texts[one.index] += one.text
                tokens[one.index] += one.tokens
            elif isinstance(one, Ended):
                ends[one.index] = one
    return {
        **reply.head("chat.completion"),
        "choices": [
            {
                "index": index,
                "message": _message(texts[index], end.calls),
                "logprobs": _logprobs(reply, tokens[index]),
                "finish_reason": end.reason,
            }
            for index, end in sorted(ends.items())
        ],
        "usage": _usage(reply, ends.values()),
    }


async def _stream(model: str, events: AsyncGenerator[Event, None], *, usage: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        try:
            reply = await _begun(model, events)
            async with aclosing(_pieces(reply, events, usage=usage)) as pieces:
                async for piece in pieces:
                    yield piece
        except ServeError as error:
            yield event(envelope(error))
            return
    yield event("[DONE]")


async def _pieces(reply: Reply, events: AsyncGenerator[Event, None], *, usage: bool) -> AsyncGenerator[bytes, None]:
    head = reply.head("chat.completion.chunk")
    if usage:
        head["usage"] = None
    ends: list[Ended] = []

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, tokens: Sequence[Token] = ()) -> bytes:
        logprobs = _logprobs(reply, tokens) if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**head, "choices": [choice]})

    def chunks(one: Event) -> list[bytes]:
        if isinstance(one, Piece):
            return [chunk(one.index, {"content": one.text}, None, one.tokens)]
        if isinstance(one, Begun):
            return []
        ends.append(one)
        calls = [{"index": place, **call} for place, call in enumerate(_calls(one.calls))]
        told = [chunk(one.index, {"tool_calls": calls})] if calls else []
        return [*told, chunk(one.index, {}, one.reason)]

    for index in range(len(reply.ask.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for one in events:
        for part in chunks(one):
            yield part
    if usage:
        yield event({**head, "choices": [], "usage": _usage(reply, ends)})


def _message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": _calls(calls)}
    return message


def _calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
        }
        for call in calls
    ]


def _logprobs(reply: Reply, tokens: Sequence[Token]) -> Mapping[str, Any] | None:
    if not reply.ask.logprobs:
        return None
    content = [
        {
            "token": token.text or "",
            "logprob": token.logprob,
            "bytes": None if token.text is None else list(token.text.encode()),
            "top_logprobs": [],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _usage(reply: Reply, ends: Any) -> dict[str, int]:
    sampled = sum(end.sampled for end in ends)
    asked = reply.ask.prompt_tokens
    return {"prompt_tokens": asked, "completion_tokens": sampled, "total_tokens": asked + sampled}
