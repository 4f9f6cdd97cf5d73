"""Chat completions: replies without a memory, through the engine that the conversations use.

Invariant: a request is answered from its own messages alone, and its replies are the same in a stream and in one piece.
Whatever ends it (its last token, a stop text, its client's leaving, the server's end) frees its places in the engine's
batch at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ..agents.multi_turn import MultiTurnAgent
from ..agents.runtime import AgentRuntime
from ..chat import GrowingText
from ..core.errors import is_out_of_memory
from ..core.outcome import StopReason
from ..core.tool_calls import ToolCall
from ..engines.base import GenerationRequest
from .completion_prompt import Ask, ask
from .conversations import Conversations
from .errors import OutOfMemory, ServeError, TurnCancelled, TurnFailed
from .finishing import finished
from .http_limits import HttpLimits
from .openai_schema import CompletionRequest, FinishReason
from .stop_texts import StopTexts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token:
    """A sampled token; `text` is what it says by itself, None for a part of a character."""

    text: str | None
    logprob: float


@dataclass(frozen=True)
class Piece:
    """A part of a reply, with the tokens that it is made of."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The end of a reply."""

    index: int
    reason: FinishReason
    sampled: int
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Begun:
    """A request has a place and fits: what is asked of whom."""

    ask: Ask
    runtime: AgentRuntime


Event = Begun | Piece | Ended


class Completions:
    """Answers chat completion requests.

    Args:
        conversations: the service whose agent answers, and whose places for turns these requests take too.
        limits: of one request.
    """

    def __init__(self, conversations: Conversations, limits: HttpLimits) -> None:
        self._conversations = conversations
        self._limits = limits

    async def events(self, request: CompletionRequest, client: str = "") -> AsyncGenerator[Event, None]:
        """`Begun`, then the pieces of all choices as they come, and the end of each. Closing it frees their places.

        Args:
            request: what is asked for.
            client: who takes turns with others where there is too much to do.

        Raises:
            ServeError: there is no place, the request cannot be done, it took too long, or the engine broke.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        # The place is taken and given back by one task, whichever tasks read the events.
        task = asyncio.create_task(self._answer(request, client, queue))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            if task.cancelled():
                raise TurnCancelled("the engine was closed before the reply was finished", retry_after=5)
            if error := task.exception():
                raise _as_serve_error(error)
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen

    async def _answer(self, request: CompletionRequest, client: str, queue: asyncio.Queue[Event | None]) -> None:
        async with self._conversations.work(client) as agent:
            if not isinstance(agent, MultiTurnAgent):
                raise TurnFailed("the agent that is served has no model of its own")
            # A long prompt takes seconds, in which others are answered; and its place, whether its client waits or not.
            reading = asyncio.to_thread(ask, request, agent.runtime, agent.config, self._limits)
            begun = Begun(await finished(reading), agent.runtime)
            queue.put_nowait(begun)
            tasks = [asyncio.create_task(_fill(queue, begun, index)) for index in range(len(begun.ask.requests))]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _fill(queue: asyncio.Queue[Event | None], begun: Begun, index: int) -> None:
    async with contextlib.aclosing(_choice(begun, begun.ask.requests[index], index)) as events:
        async for event in events:
            queue.put_nowait(event)


async def _choice(begun: Begun, request: GenerationRequest, index: int) -> AsyncGenerator[Event, None]:
    """One reply: what may be shown as soon as that is certain, then its end."""
    codec, asked = begun.runtime.codec, begun.ask
    stops = StopTexts(asked.stops)
    ids: list[int] = []
    growing = GrowingText(codec)
    tokens: list[Token] = []
    pending = 0  # tokens whose text was not shown yet begin here
    starts: list[int] = []
    text, shown = "", 0
    header = list(codec.reply_header)
    speaks = not header
    cut: int | None = None
    stop_reason: StopReason | None = None
    stream = begun.runtime.engine.stream(request)
    try:
        async for token in stream:
            ids.append(token.id)
            final = token.final
            if not speaks:  # what comes before the header is no part of the reply
                speaks = ids[-len(header) :] == header
                starts, tokens = [], []
                if final is None:
                    continue
            if asked.logprobs and not (final is not None and final.stop_reason is StopReason.STOP):
                said = codec.parse((token.id,))
                tokens.append(Token(None if "\ufffd" in said else said, token.logprob))
                starts.append(len(text))
            if final is None and not asked.read_on_the_way:
                continue
            whole = growing.of(ids) if final is None else codec.parse(ids)
            text = whole if final is not None else whole.rstrip("\ufffd")
            cut = stops.end_of(text)
            if final is not None or cut is not None:
                stop_reason = final.stop_reason if final is not None else None
                break
            safe = stops.safe(text)
            if asked.form is not None:
                safe = min(safe, len(_speech(asked, text)))
            if safe > shown:
                upto = next((at for at, start in enumerate(starts) if start >= safe), len(starts))
                yield Piece(index, text[shown:safe], tuple(tokens[pending:upto]))
                shown, pending = safe, upto
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    if cut is None and stop_reason is None:
        raise TurnFailed("the engine's stream ended without a last token")
    if stop_reason is StopReason.CANCELLED:
        raise TurnCancelled("the engine gave the reply up", retry_after=1.0)
    text = text if cut is None else text[:cut]
    calls = _calls(asked, text)
    kept = len(starts) if cut is None else next((at for at, start in enumerate(starts) if start >= cut), len(starts))
    rest = text[shown:] if not calls else _speech(asked, text)[shown:]
    if rest or kept > pending:
        yield Piece(index, rest, tuple(tokens[pending:kept]))
    ended = cut is not None or stop_reason is StopReason.STOP
    yield Ended(index, "tool_calls" if calls else "stop" if ended else "length", len(ids), calls)


def _calls(asked: Ask, text: str) -> tuple[ToolCall, ...]:
    """The calls of a reply, if all that looks like one is one, of a tool that the client has."""
    found = asked.form.calls(text) if asked.form is not None else []
    calls = [call for call in found if isinstance(call, ToolCall) and call.name in asked.tools]
    return tuple(calls) if len(calls) == len(found) else ()


def _speech(asked: Ask, text: str) -> str:
    return asked.form.speech(text).rstrip() if asked.form is not None else text


def _as_serve_error(error: BaseException) -> ServeError:
    if isinstance(error, ServeError):
        return error
    logger.error("a chat completion request failed", exc_info=error)
    if is_out_of_memory(error):
        return OutOfMemory("there was no memory for this reply; try again later", retry_after=5)
    return TurnFailed("the engine failed on this request; others go on")
