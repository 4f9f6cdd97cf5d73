"""How a message is answered: a place, a fork, the agent's turn, the transaction.

Invariant: of a turn either everything is stored or nothing, and until it is over nobody else answers in its
conversation. Whatever an agent raises, its client hears of it as a `ServeError`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ..core.errors import ContextFull, is_out_of_memory
from ..core.outcome import StopReason
from ..core.tool_calls import spoken
from ..core.trajectory import ConversationTurn
from .clock import Clock
from .errors import (
    ConversationTooLong,
    KeyReused,
    OutOfMemory,
    ServeError,
    StoreFailed,
    TurnFailed,
    TurnRunning,
    TurnTimeout,
)
from .finishing import finished, kept
from .forks import Fork, Forks
from .gate import Gate
from .limits import ServeLimits
from .ongoing import Active, Ongoing
from .replies import Reply
from .store import Attempt, AttemptState, Conversation, ConversationStore, Status, StoredTurn
from .transcript import stored_reply
from .turn import Turn
from .watch import Observe

logger = logging.getLogger(__name__)

NOTHING_KEPT = "nothing of this turn is kept"


class Answering:
    """See the module."""

    def __init__(
        self,
        store: ConversationStore,
        forks: Forks,
        ongoing: Ongoing,
        gate: Gate,
        limits: ServeLimits,
        clock: Clock,
        observe: Observe,
    ) -> None:
        self._store, self._forks, self._ongoing, self._gate = store, forks, ongoing, gate
        self._limits, self._clock, self._observe = limits, clock, observe
        self.stopping = False

    async def run(
        self, turn: Turn, active: Active, attempt: Attempt, message: str, context: Mapping[str, Any]
    ) -> Reply:
        """One turn, from waiting for its place to the stored reply.

        Args:
            turn: gets the pieces.
            active: the conversation.
            attempt: which is begun.
            message: the user's.
            context: what `process_turn` is told.
        """
        begun, outcome = self._clock.monotonic(), "cancelled"
        active.turns.add(turn)
        try:
            async with self.in_time(), self._alone(active, turn.client), self._gate.place(turn.client):
                reply = await self._attempt(turn, active, attempt, message, context)
            outcome = "done"
            return reply
        except Exception as error:
            told = as_serve_error(error)
            outcome = told.slug
            raise told from error
        finally:
            active.turns.discard(turn)
            self._observe("turn", self._clock.monotonic() - begun, outcome=outcome)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """A block that may take as long as a turn may.

        Raises:
            TurnTimeout: it took longer.
        """
        limit = asyncio.timeout(self._limits.turn_seconds)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TurnTimeout(f"no reply within {self._limits.turn_seconds:g} seconds; {NOTHING_KEPT}") from error

    def replay(self, known: Attempt, digest: str) -> Reply:
        """The reply to a request whose key is known.

        Raises:
            KeyReused: the key belongs to another message.
            TurnRunning: there is no reply yet.
        """
        if not hmac.compare_digest(known.digest, digest):
            raise KeyReused("this idempotency key belongs to another message; use a fresh one for each message")
        if known.state is not AttemptState.DONE or known.reply is None:
            raise TurnRunning("the message with this key is still being answered", retry_after=self._gate.expected_wait)
        return Reply(**known.reply, replayed=True)

    @asynccontextmanager
    async def _alone(self, active: Active, client: str) -> AsyncIterator[None]:
        """Be the only turn of a conversation."""
        if active.lock.locked():
            running = TurnRunning("the last message is still being answered", retry_after=self._gate.expected_wait)
            if not self._limits.turn_wait:
                raise running
            async with self._gate.wait(client):
                try:
                    async with asyncio.timeout(self._limits.turn_wait):
                        await active.lock.acquire()
                except TimeoutError:
                    raise running from None
        else:
            await active.lock.acquire()
        try:
            yield
        finally:
            active.lock.release()

    async def _attempt(
        self, turn: Turn, active: Active, attempt: Attempt, message: str, context: Mapping[str, Any]
    ) -> Reply:
        try:
            conversation, known = await self._store.begin(attempt)
            if known.id != attempt.id:
                reply = self.replay(known, attempt.digest)
                if reply.response:
                    turn.pieces.put_nowait(reply.response)
                return reply
            async with self._forks.in_use() as served:
                fork = await self._forks.take(conversation, served, self._store)
                try:
                    said = await _answer(turn, fork, message, context)
                    reply = await self._commit(active, attempt, conversation, message, said)
                except BaseException:
                    fork.agent.release()
                    raise
                user = ConversationTurn("user", message, timestamp=attempt.begun_at)
                fork.history += [user, *said.steps, said]
                fork.turns = conversation.turns + 2
                if reply.status == Status.ONGOING:
                    self._forks.keep(conversation.id, fork)
                else:
                    fork.agent.release()
                return reply
        except BaseException as error:
            interrupted = self.stopping and isinstance(error, asyncio.CancelledError)
            await finished(self._take_back(attempt, interrupted=interrupted))
            raise

    async def _commit(
        self, active: Active, attempt: Attempt, before: Conversation, message: str, said: ConversationTurn
    ) -> Reply:
        stored = stored_reply(said, self._clock.now())
        messages = before.turns // 2 + 1
        ends = "turn_limit" if messages >= self._limits.max_turns else None
        reply = Reply(
            conversation_id=before.id,
            response=stored.content,
            turn_count=before.turn_count + 1,
            status=(Status.ENDED if ends else Status.ONGOING).value,
            finish_reason="length" if said.stop_reason in (StopReason.LENGTH, StopReason.CONTEXT) else "stop",
            steps=list(stored.data.get("steps", ())),
        )
        turns = [StoredTurn("user", message, attempt.begun_at), stored]
        after = await kept(self._store.commit(attempt, turns, reply.record(), ends=ends))
        self._ongoing.touch(active, after)
        if ends:
            self._ongoing.leave(after)
        for result in (step.tool_result for step in said.steps if step.tool_result is not None):
            outcome = result.error.value if result.error else "ok"
            self._observe("tool_call", result.seconds, tool=result.name, outcome=outcome)
        return reply

    async def _take_back(self, attempt: Attempt, *, interrupted: bool) -> None:
        try:
            await self._store.drop(attempt.id, interrupted=interrupted)
        except StoreFailed:  # the conversation's next turn finds what was left, or the next process
            logger.warning("a turn of %s could not be taken back", attempt.conversation_id, exc_info=True)


async def _answer(turn: Turn, fork: Fork, message: str, context: Mapping[str, Any]) -> ConversationTurn:
    """The agent's turn; its pieces and steps go to whoever waits."""
    last: object = None
    if not turn.in_pieces:  # no text is made of each token that nobody reads
        last = await fork.agent.process_turn(fork.history, message, context)
    else:
        async with aclosing(fork.agent.stream_turn(fork.history, message, context)) as pieces:
            async for piece in pieces:
                if isinstance(last, ConversationTurn):
                    turn.pieces.put_nowait(last)
                last = piece
                if isinstance(piece, str):
                    turn.pieces.put_nowait(piece)
    if not isinstance(last, ConversationTurn) or last.role != "assistant" or not isinstance(last.content, str):
        raise TypeError(f"the agent's turn is {last!r:.200}; it must be ConversationTurn(role='assistant', ...)")
    if last.stop_reason is StopReason.CONTEXT and last.span is None and not spoken(last):
        raise ContextFull(last.metadata.get("prompt_tokens", 0), last.metadata.get("max_context", 0))
    return last


def as_serve_error(error: Exception) -> ServeError:
    """What a client is told of an error; what it is not told is logged."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, ContextFull):
        return ConversationTooLong(
            f"the conversation has {error.prompt_tokens} tokens with this message, and the model takes "
            f"{error.max_context}; begin another one, or send a shorter message"
        )
    logger.error("a turn failed", exc_info=error)
    if is_out_of_memory(error):
        return OutOfMemory("there was no memory for this reply; try again later", retry_after=5)
    return TurnFailed(f"the agent broke while it answered; {NOTHING_KEPT}")
