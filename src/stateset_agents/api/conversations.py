"""The service: people talk to the agent, and what was said is kept.

Invariant: a conversation has one turn at a time, and its history is the turns whose replies were sent. A turn that
fails, is cancelled, or dies with the process leaves the history as it was before it. A turn whose reply is stored
counts, even if its client went away at that very moment; with the same idempotency key the client gets that reply.

Clients are kept apart by owner. What a client gives as context goes to the agent's code as `context["client"]`, and
into the system prompt only if the operator said so (`ServeLimits.context_instructs`): who talks to an agent does not
instruct it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..agents import Agent
from ..core.errors import ContextFull, is_out_of_memory
from ..core.outcome import StopReason
from ..core.tool_calls import spoken
from ..core.trajectory import ConversationTurn
from .clock import Clock
from .errors import (
    ConversationOver,
    ConversationTooLong,
    InvalidRequest,
    KeyReused,
    OutOfMemory,
    ServeError,
    TooLong,
    TooManyConversations,
    TurnCancelled,
    TurnFailed,
    TurnRunning,
    TurnTimeout,
    Unavailable,
    UnknownConversation,
)
from .finishing import finished, kept
from .forks import Fork, Forks
from .gate import Gate
from .limits import ServeLimits
from .operations import require_ongoing
from .store import Attempt, AttemptState, Conversation, ConversationStore, Status, StoredTurn, new_id
from .turns import stored_reply
from .watch import EngineWatch, Observe, ignore

logger = logging.getLogger(__name__)

GREETING = "Hello! How can I help you today?"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """A conversation that began."""

    conversation_id: str
    message: str
    status: str = "started"

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON."""
        return {"conversation_id": self.conversation_id, "status": self.status, "message": self.message}


@dataclass(frozen=True)
class Reply:
    """The answer to a message.

    Attributes:
        conversation_id, response, turn_count, status: as documented; the status is "ended" for the last reply that a
            conversation may have.
        finish_reason: "stop", or "length" for a reply that was cut.
        steps: calls of tools and what the tools said, on the way to it.
        replayed: whether it is the stored reply to an earlier request with the same idempotency key.
    """

    conversation_id: str
    response: str
    turn_count: int
    status: str
    finish_reason: str = "stop"
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    replayed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON."""
        return {
            "conversation_id": self.conversation_id,
            "response": self.response,
            "turn_count": self.turn_count,
            "status": self.status,
        }


@dataclass(frozen=True)
class History:
    """What was said.

    Attributes:
        conversation_id: of which.
        turns: a page of it.
        status: "ongoing", "ended" or "expired".
        total: turns that there are.
        interrupted: turns that were begun and lost when a server died: when, and after how many turns.
    """

    conversation_id: str
    turns: list[StoredTurn]
    status: str
    total: int
    interrupted: list[Attempt] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON; steps and interruptions are there where there were any."""
        turns: list[dict[str, Any]] = []
        for turn in self.turns:
            turns.append({"role": turn.role, "content": turn.content, "timestamp": _iso(turn.timestamp)})
            if turn.data.get("steps"):
                turns[-1]["steps"] = turn.data["steps"]
        data: dict[str, Any] = {"conversation_id": self.conversation_id, "turns": turns, "status": self.status}
        if self.interrupted:
            data["interrupted"] = [{"after": a.after, "timestamp": _iso(a.begun_at)} for a in self.interrupted]
        return data


@dataclass(eq=False)
class _Turn:
    """A turn under way.

    Attributes:
        pieces: what is there to be shown; None comes last.
        task: that answers.
        cut: why somebody else than the client ended it.
        over: set when it is.
    """

    pieces: asyncio.Queue[str | ConversationTurn | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[Any] | None = None
    cut: ServeError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self, why: ServeError) -> None:
        if self.task is not None and self.cut is None:
            self.cut = why
            self.task.cancel()


@dataclass(eq=False)
class _Active:
    """An ongoing conversation in this process.

    Attributes:
        last_activity: as it is stored.
        touched: the same on the monotonic clock.
        lock: of the turn that runs.
        turns: that run or wait for the lock.
    """

    last_activity: datetime
    touched: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: set[_Turn] = field(default_factory=set)


class Conversations:
    """The service behind `/chat`. Call `open` first; one event loop.

    Args:
        agent: who answers.
        store: where conversations are kept; opened and closed with the service.
        limits: how much of everything.
        greeting: what each conversation begins with; "" for nothing. The model does not see it.
        clock: for times.
        watch: of the agents' engines.
        observe: hears of every measured value.
    """

    def __init__(
        self,
        agent: Agent,
        store: ConversationStore,
        limits: ServeLimits | None = None,
        *,
        greeting: str = GREETING,
        clock: Clock | None = None,
        watch: EngineWatch | None = None,
        observe: Observe = ignore,
    ) -> None:
        self.limits = limits or ServeLimits()
        self.clock = clock or Clock()
        self.watch = watch or EngineWatch(self.clock, observe)
        self.gate = Gate(self.limits.max_running, self.limits.max_waiting)
        self._store = store
        self._forks = Forks(agent, self.limits)
        self._greeting = greeting
        self._observe = observe
        self._active: dict[str, _Active] = {}
        self._turns: set[_Turn] = set()
        self._state = "loading"
        self._replacing = asyncio.Lock()

    # What a server asks about

    @property
    def agent(self) -> Agent:
        """Who answers now."""
        return self._forks.agent

    @property
    def version(self) -> int:
        """Of the agent: 1, and one more for each that took its place."""
        return self._forks.version

    @property
    def active(self) -> int:
        """Ongoing conversations of this process."""
        return len(self._active)

    @property
    def state(self) -> str:
        """One of "loading", "serving", "draining" and "closed"."""
        return self._state

    async def ping(self) -> None:
        """Make sure that the store can be written.

        Raises:
            StoreFailed: it cannot.
        """
        await self._store.ping()

    # From the first line to the last

    async def open(self) -> int:
        """Load the agent and open the store; returns how many turns were found interrupted."""
        await self.agent.initialize()
        self.watch.attach(self.agent)
        interrupted = await self._store.open(self.clock.now())
        for conversation in await self._store.ongoing():
            self._see(conversation)
        self._state = "serving"
        return interrupted

    async def drain(self, timeout: float) -> int:
        """Take nothing on any more, let turns finish, and cut those that are not done in time.

        Returns:
            How many were cut.
        """
        self._state = "draining"
        await self._idle(timeout)
        rest = [*self._turns]
        for turn in rest:
            turn.cancel(TurnCancelled("the server stops; send the message again", retry_after=1))
        await self._idle(None)
        return len(rest)

    async def close(self) -> None:
        """Cut what runs, and let go of agent and store."""
        await self.drain(0)
        self._state = "closed"
        await self._forks.aclose()
        await self._store.aclose()

    async def replace_agent(self, agent: Agent) -> int:
        """Let another agent answer: the turns that run finish with the old one, which is closed then.

        Args:
            agent: is loaded, and says something, before it answers anybody. If it cannot, the old one stays.

        Returns:
            The version.
        """
        async with self._replacing:
            await agent.initialize()
            self.watch.attach(agent)
            probe = agent.fork("probe")
            try:
                await probe.process_turn([], "Hello", self._told(None, {}))
            finally:
                probe.release()
            await self._forks.replace(agent)
            return self.version

    # What clients ask for

    async def start(
        self, user_id: str | None = None, context: Mapping[str, Any] | None = None, owner: str = ""
    ) -> Started:
        """Begin a conversation.

        Args:
            user_id: the client's name for whoever talks.
            context: what it is about: JSON.
            owner: see `owner_of`.

        Raises:
            TooManyConversations: as many as may be are under way.
            TooLong, InvalidRequest: the context or the user's id cannot be taken.
            Unavailable, StoreFailed: not now.
        """
        self._require_serving()
        self._check_context(user_id, context)
        await self._make_room()
        now = self.clock.now()
        conversation = Conversation(new_id(), owner, now, now, user_id, dict(context or {}))
        self._see(conversation)  # before it is stored: the place is taken
        try:
            greeting = StoredTurn("assistant", self._greeting, now) if self._greeting else None
            await finished(self._stored("create", self._store.create(conversation, greeting)))
        except BaseException:
            self._active.pop(conversation.id, None)
            raise
        return Started(conversation.id, self._greeting)

    async def turn(
        self, conversation_id: str, message: str, owner: str = "", idempotency_key: str | None = None
    ) -> Reply:
        """The reply to a message. Cancelling it drops the turn, unless its reply is stored already.

        Args:
            conversation_id: of which conversation.
            message: what the user says.
            owner: see `owner_of`.
            idempotency_key: a request with the same key and message is answered by the same reply, once.

        Raises:
            ServeError: see `errors`.
        """
        async with aclosing(self.stream(conversation_id, message, owner, idempotency_key)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
        raise TurnFailed("there was no reply")

    async def stream(
        self, conversation_id: str, message: str, owner: str = "", idempotency_key: str | None = None
    ) -> AsyncGenerator[str | ConversationTurn | Reply, None]:
        """Like `turn`, in pieces; closing the generator drops the turn.

        Yields:
            Pieces of text; a turn for each call of a tool that is about to be made, and for what the tool said; and the
            reply at last, when it is stored.
        """
        self._check_message(message, idempotency_key)
        digest = hashlib.sha256(message.encode()).hexdigest()
        conversation = await self._owned(conversation_id, owner)
        if idempotency_key is not None:
            known = await self._stored("answered", self._store.answered(conversation_id, idempotency_key))
            if known is not None:
                reply = self._replay(known, digest)
                yield reply.response
                yield reply
                return
        self._require_serving()
        active = await self._ongoing(conversation)
        self._require_serving()
        attempt = Attempt(new_id("turn_"), conversation_id, self.clock.now(), key=idempotency_key, digest=digest)
        turn = _Turn()
        turn.task = task = asyncio.create_task(self._run(turn, active, attempt, message))
        task.add_done_callback(lambda _: turn.pieces.put_nowait(None))
        self._turns.add(turn)
        active.turns.add(turn)
        try:
            while (piece := await turn.pieces.get()) is not None:
                yield piece
            yield self._result(turn, task)
        finally:
            task.cancel()
            await finished(asyncio.wait([task]))
            if not task.cancelled():
                task.exception()  # seen

    async def history(self, conversation_id: str, owner: str = "", after: int = 0, limit: int | None = None) -> History:
        """What was said, also after the end. Reading is no activity.

        Args:
            conversation_id: of which conversation.
            owner: see `owner_of`.
            after: turns to leave out from the beginning.
            limit: turns at most.
        """
        conversation = await self._owned(conversation_id, owner)
        if conversation.status is Status.ONGOING:
            with contextlib.suppress(ConversationOver):
                await self._ongoing(conversation)
            conversation = await self._owned(conversation_id, owner)
        turns = await self._stored("turns", self._store.turns(conversation_id, after, limit))
        lost = await self._stored("interrupted", self._store.interrupted(conversation_id))
        return History(conversation_id, turns, conversation.status.value, conversation.turns, lost)

    async def end(self, conversation_id: str, owner: str = "") -> Conversation:
        """End a conversation; a turn that runs is cut. Ending it again changes nothing."""
        await self._owned(conversation_id, owner)
        ended = self._store.end(conversation_id, self.clock.now(), Status.ENDED, "ended")
        conversation = await finished(self._stored("end", ended))
        if conversation is None:
            raise UnknownConversation
        self._over(conversation)
        return conversation

    @asynccontextmanager
    async def work(self) -> AsyncIterator[Agent]:
        """A place among the turns that run, for a request that belongs to no conversation: who answers it.

        It waits, is refused, and is cut by a drain as turns are.

        Raises:
            QueueFull, Unavailable: not now.
            TurnTimeout: it took too long.
        """
        self._require_serving()
        task = asyncio.current_task()
        turn = _Turn(task=task)
        self._turns.add(turn)
        try:
            async with self._in_time(), self.gate.place(), self._forks.in_use() as served:
                yield served.agent
        except asyncio.CancelledError:
            if turn.cut is not None:
                if task is not None:
                    task.uncancel()
                raise turn.cut from None
            raise
        finally:
            self._remove(turn)

    async def sweep(self) -> None:
        """Expire what nobody writes to any more, and delete what was over for long. A server calls it now and then."""
        for conversation_id in [*self._active]:
            await self._expire_if_idle(conversation_id)
        await self._stored("purge", self._store.purge(self.clock.now() - timedelta(seconds=self.limits.keep_seconds)))

    # How a turn goes

    async def _run(self, turn: _Turn, active: _Active, attempt: Attempt, message: str) -> Reply:
        """One turn, from waiting for its place to the stored reply."""
        begun, outcome = self.clock.monotonic(), "cancelled"
        try:
            async with self._in_time(), self._alone(active), self.gate.place():
                reply = await self._attempt(turn, active, attempt, message)
            outcome = "done"
            return reply
        except ServeError as error:
            outcome = error.slug
            raise
        finally:
            self._remove(turn)
            active.turns.discard(turn)
            self._observe("turn", self.clock.monotonic() - begun, outcome=outcome)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.limits.turn_seconds):
                yield
        except TimeoutError:
            raise TurnTimeout(f"no reply within {self.limits.turn_seconds:g} seconds; nothing of it is kept") from None

    @asynccontextmanager
    async def _alone(self, active: _Active) -> AsyncIterator[None]:
        """Be the only turn of a conversation."""
        if active.lock.locked():
            running = TurnRunning("the last message is still being answered", retry_after=self.gate.expected_wait)
            if not self.limits.turn_wait:
                raise running
            async with self.gate.wait():
                try:
                    await asyncio.wait_for(active.lock.acquire(), self.limits.turn_wait)
                except TimeoutError:
                    raise running from None
        else:
            await active.lock.acquire()
        try:
            yield
        finally:
            active.lock.release()

    async def _attempt(self, turn: _Turn, active: _Active, attempt: Attempt, message: str) -> Reply:
        try:
            conversation, known = await self._stored("begin", self._store.begin(attempt))
            if known.id != attempt.id:
                reply = self._replay(known, attempt.digest)
                turn.pieces.put_nowait(reply.response)
                return reply
            async with self._forks.in_use() as served:
                fork = await self._forks.take(conversation, served, self._store)
                try:
                    said = await self._answer(turn, fork, conversation, message)
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
            drained = isinstance(error, asyncio.CancelledError) and self._state == "draining"
            await finished(self._dropped(attempt, interrupted=drained))
            raise

    async def _answer(self, turn: _Turn, fork: Fork, conversation: Conversation, message: str) -> ConversationTurn:
        told = self._told(conversation.user_id, conversation.context)
        last: object = None
        try:
            async with aclosing(fork.agent.stream_turn(fork.history, message, told)) as pieces:
                async for piece in pieces:
                    if isinstance(last, ConversationTurn):
                        turn.pieces.put_nowait(last)
                    last = piece
                    if isinstance(piece, str):
                        turn.pieces.put_nowait(piece)
        except ServeError:
            raise
        except ContextFull as error:
            raise _too_long(error.prompt_tokens, error.max_context) from error
        except Exception as error:
            logger.exception("a turn of %s failed", conversation.id)
            if is_out_of_memory(error):
                raise OutOfMemory("there was no memory for this reply; try again later", retry_after=5) from error
            raise TurnFailed("the agent broke while it answered; nothing of this turn is kept") from error
        if not isinstance(last, ConversationTurn) or last.role != "assistant" or not isinstance(last.content, str):
            logger.error("the agent's turn is %r; it must be ConversationTurn(role='assistant', ...)", last)
            raise TurnFailed("the agent gave no reply; nothing of this turn is kept")
        if last.stop_reason is StopReason.CONTEXT and last.span is None and not last.content:
            raise _too_long(last.metadata.get("prompt_tokens"), last.metadata.get("max_context"))
        return last

    async def _commit(
        self, active: _Active, attempt: Attempt, before: Conversation, message: str, said: ConversationTurn
    ) -> Reply:
        now = self.clock.now()
        stored = stored_reply(said, now)
        users = before.turns // 2 + 1
        ends = "turn_limit" if users >= self.limits.max_turns else None
        reply = Reply(
            conversation_id=before.id,
            response=spoken(said),
            turn_count=before.turn_count + 1,
            status=(Status.ENDED if ends else Status.ONGOING).value,
            finish_reason="length" if said.stop_reason in (StopReason.LENGTH, StopReason.CONTEXT) else "stop",
            steps=list(stored.data.get("steps", ())),
        )
        turns = [StoredTurn("user", message, attempt.begun_at), stored]
        record = {**reply.to_dict(), "finish_reason": reply.finish_reason, "steps": reply.steps}
        after = await kept(self._stored("commit", self._store.commit(attempt, turns, record, ends=ends)))
        for step in said.steps:
            if step.tool_result is not None:
                outcome = step.tool_result.error.value if step.tool_result.error else "ok"
                self._observe("tool_call", step.tool_result.seconds, tool=step.tool_result.name, outcome=outcome)
        active.last_activity, active.touched = after.last_activity, self.clock.monotonic()
        if ends:
            self._over(after)
        return reply

    async def _dropped(self, attempt: Attempt, *, interrupted: bool) -> None:
        try:
            await self._stored("drop", self._store.drop(attempt.id, interrupted=interrupted))
        except ServeError:  # the next turn of the conversation, or the next process, finds what was left
            logger.warning("a turn of %s could not be taken back", attempt.conversation_id, exc_info=True)

    def _result(self, turn: _Turn, task: asyncio.Task[Reply]) -> Reply:
        if task.cancelled():
            raise turn.cut or TurnFailed("the engine was closed while it answered; nothing of this turn is kept")
        return task.result()

    def _replay(self, known: Attempt, digest: str) -> Reply:
        if not hmac.compare_digest(known.digest, digest):
            raise KeyReused("this idempotency key belongs to another message; use a fresh one for each message")
        if known.state is not AttemptState.DONE or known.reply is None:
            raise TurnRunning("the message with this key is still being answered", retry_after=self.gate.expected_wait)
        return Reply(**known.reply, replayed=True)

    # Which conversations there are

    async def _owned(self, conversation_id: str, owner: str) -> Conversation:
        conversation = await self._stored("find", self._store.find(conversation_id))
        if conversation is None or not hmac.compare_digest(conversation.owner.encode(), owner.encode()):
            raise UnknownConversation
        return conversation

    async def _ongoing(self, conversation: Conversation) -> _Active:
        """The place of a conversation that is not over; one that nobody wrote to for too long is over from now on."""
        require_ongoing(conversation)
        self._see(conversation)
        await self._expire_if_idle(conversation.id)
        active = self._active.get(conversation.id)
        if active is None:
            require_ongoing(await self._owned(conversation.id, conversation.owner))
            raise UnknownConversation
        return active

    def _see(self, conversation: Conversation) -> None:
        """Know of an ongoing conversation: of one that was just read from the store, how long ago it was written to."""
        active = self._active.get(conversation.id)
        if active is None or conversation.last_activity > active.last_activity:
            age = max(0.0, (self.clock.now() - conversation.last_activity).total_seconds())
            active = active or _Active(conversation.last_activity, 0.0)
            active.last_activity, active.touched = conversation.last_activity, self.clock.monotonic() - age
            self._active[conversation.id] = active

    async def _expire_if_idle(self, conversation_id: str) -> None:
        active = self._active.get(conversation_id)
        if active is None or active.turns or self._left(active) > 0:
            return
        expired = self._store.end(
            conversation_id, self.clock.now(), Status.EXPIRED, "expired", if_idle_since=active.last_activity
        )
        conversation = await finished(self._stored("end", expired))
        if conversation is None:
            self._active.pop(conversation_id, None)
        elif conversation.status is Status.ONGOING:  # another process knows it better
            self._see(conversation)
        else:
            self._over(conversation)

    def _left(self, active: _Active) -> float:
        """Seconds until it expires."""
        return active.touched + self.limits.idle_seconds - self.clock.monotonic()

    def _over(self, conversation: Conversation) -> None:
        active = self._active.pop(conversation.id, None)
        self._forks.forget(conversation.id)
        if active is None:
            return
        reason = conversation.reason or conversation.status.value
        self._observe("eviction", 1, reason=reason)
        for turn in active.turns:
            if turn.task is not asyncio.current_task():
                turn.cancel(ConversationOver(reason, conversation.over_at or conversation.last_activity))

    async def _make_room(self) -> None:
        most = self.limits.max_conversations
        if len(self._active) >= most:
            for conversation_id in [*self._active]:
                await self._expire_if_idle(conversation_id)
        if len(self._active) >= most:
            soonest = min((self._left(active) for active in self._active.values() if not active.turns), default=60.0)
            raise TooManyConversations(
                f"{most} conversations are under way, as many as may be; end one, or wait until one expires",
                retry_after=max(1.0, math.ceil(soonest)),
            )

    # What clients may say

    def _told(self, user_id: str | None, context: Mapping[str, Any]) -> dict[str, Any]:
        """What an agent's `process_turn` gets as its context."""
        told: dict[str, Any] = {"client": {"user_id": user_id, "context": dict(context)}}
        if self.limits.context_instructs and context:
            told["agent_context"] = "\n".join(
                f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in context.items()
            )
        return told

    def _check_message(self, message: str, key: str | None) -> None:
        if not isinstance(message, str) or not message.strip():
            raise InvalidRequest("the message is empty; say something")
        if len(message) > self.limits.message_characters:
            raise TooLong(
                f"the message has {len(message)} characters; at most {self.limits.message_characters} are taken"
            )
        if not _is_text(message):
            raise InvalidRequest("the message holds half of a surrogate pair, which is no character")
        if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            raise InvalidRequest("an idempotency key has 1 to 255 printable ASCII characters")

    def _check_context(self, user_id: str | None, context: Mapping[str, Any] | None) -> None:
        try:
            size = len(json.dumps([user_id, context or {}]))
        except (RecursionError, TypeError, ValueError):
            raise InvalidRequest("the context is no JSON object, or too deep") from None
        if size > self.limits.context_characters:
            most = self.limits.context_characters
            raise TooLong(f"context and user_id have {size} characters as JSON; at most {most} are taken")

    def _require_serving(self) -> None:
        if self._state != "serving":
            raise Unavailable(f"the server is {self._state}; try again in a moment", retry_after=5)

    def _remove(self, turn: _Turn) -> None:
        self._turns.discard(turn)
        turn.over.set()

    async def _idle(self, timeout: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for turn in [*self._turns]:
                    await turn.over.wait()

    async def _stored(self, op: str, work: Awaitable[Result]) -> Result:
        """Wait for the store, and measure it."""
        begun = self.clock.monotonic()
        try:
            return await work
        finally:
            self._observe("store", self.clock.monotonic() - begun, op=op)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_long(prompt_tokens: object, max_context: object) -> ConversationTooLong:
    return ConversationTooLong(
        f"the conversation has {prompt_tokens} tokens with this message, and the model takes {max_context}; begin "
        "another one, or send a shorter message"
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
