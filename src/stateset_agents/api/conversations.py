"""The service: people talk to the agent, and what was said is kept.

Invariant: a conversation has one turn at a time, and its history is the turns whose replies were sent. A turn that
fails, is cancelled, or dies with the process leaves the history as it was before it. A turn whose reply is stored
counts, even if its client went away at that very moment; with the same idempotency key the client gets that reply.

Clients are kept apart by owner: to others a conversation does not exist. What a client gives as context goes to the
agent's code as `context["client"]`, and into the system prompt only if the operator said so
(`ServeLimits.context_instructs`): who talks to an agent does not instruct it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from ..agents import Agent
from ..core.trajectory import ConversationTurn
from .admission import check_key, check_message, told_to_the_agent
from .answering import Answering
from .clock import Clock
from .errors import ConversationOver, TurnCancelled, TurnFailed, Unavailable, UnknownConversation
from .finishing import finished
from .forks import Forks, close_agent
from .gate import Gate
from .limits import ServeLimits
from .ongoing import Active, Ongoing
from .operations import require_ongoing
from .replies import History, Reply, Started
from .starting import Starting
from .store import Attempt, Conversation, ConversationStore, Status, new_id
from .turn import STUBBORN, Turn, TurnsUnderWay
from .watch import EngineWatch, Observe, ignore

logger = logging.getLogger(__name__)

GREETING = "Hello! How can I help you today?"


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
        self._ongoing = Ongoing(store, self._forks, self.limits, self.clock, observe)
        self._answering = Answering(store, self._forks, self._ongoing, self.gate, self.limits, self.clock, observe)
        self.starting = Starting(store, self._ongoing, self.limits, self.clock, greeting)
        self._turns = TurnsUnderWay()
        self._state = "loading"
        self._replacing = asyncio.Lock()

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
        return len(self._ongoing)

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

    async def open(self) -> int:
        """Open the store and load the agent; returns how many turns were found interrupted.

        Raises:
            ConfigError: the store cannot be used.
            ModelError: the model cannot be loaded.
        """
        interrupted = await self._store.open()
        try:
            for conversation in await self._store.ongoing():
                self._ongoing.see(conversation)
            await self.agent.initialize()
        except BaseException:
            await self._store.aclose()
            raise
        self.watch.attach(self.agent)
        self._state = "serving"
        return interrupted

    async def drain(self, timeout: float) -> int:
        """Take nothing on any more, let turns finish, and cut those that are not done in time.

        Returns:
            How many were cut.
        """
        self._state = "draining"
        if await self._turns.settle(timeout):
            return 0
        self._answering.stopping = True
        cut = self._turns.cancel(TurnCancelled("the server stops; send the message again", retry_after=1))
        if not await self._turns.settle(STUBBORN):
            logger.error("turns go on %g seconds after they were cancelled; they are left behind", STUBBORN)
        return cut

    async def close(self) -> None:
        """Cut what runs, and let go of agent and store."""
        await self.drain(0)
        self._state = "closed"
        await self._forks.aclose()
        await self._store.aclose()

    async def replace_agent(self, agent: Agent) -> int:
        """Let another agent answer: the turns that run finish with the old one, which is closed then.

        Args:
            agent: is loaded, and says something, before it answers anybody. If it cannot, the old one stays and this
                one is closed.

        Returns:
            The version.
        """
        async with self._replacing:
            try:
                await agent.initialize()
                self.watch.attach(agent)
                probe = agent.fork("probe")
                try:
                    async with self._answering.in_time():
                        await probe.process_turn([], "Hello", told_to_the_agent(None, {}, self.limits))
                finally:
                    probe.release()
                self._require_serving()
            except BaseException:
                await close_agent(agent)
                raise
            await self._forks.replace(agent)
            return self.version

    async def start(
        self,
        user_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        owner: str = "",
        idempotency_key: str | None = None,
    ) -> Started:
        """Begin a conversation.

        Args:
            user_id: the client's name for whoever talks.
            context: what it is about: JSON.
            owner: see `owner_of`.
            idempotency_key: requests of the same owner with the same key and words begin one conversation.

        Raises:
            TooManyConversations: as many as may be are under way.
            KeyReused: the key belongs to another request.
            TooLong, InvalidRequest: the context or the user's id cannot be taken.
            Unavailable, StoreFailed: not now.
        """
        self._require_serving()
        return await self.starting.start(user_id, context, owner, idempotency_key)

    async def turn(
        self,
        conversation_id: str,
        message: str,
        owner: str = "",
        idempotency_key: str | None = None,
        *,
        client: str | None = None,
    ) -> Reply:
        """The reply to a message. Cancelling it drops the turn, unless its reply is stored already.

        Args:
            conversation_id: of which conversation.
            message: what the user says.
            owner: see `owner_of`.
            idempotency_key: a request with the same key and message is answered by the same reply, once.
            client: who takes turns with others where there is too much to do; the owner, if none is given.

        Raises:
            ServeError: see `errors`.
        """
        whole = self.stream(conversation_id, message, owner, idempotency_key, client=client, in_pieces=False)
        async with aclosing(whole) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
        raise TurnFailed("there was no reply")

    async def stream(
        self,
        conversation_id: str,
        message: str,
        owner: str = "",
        idempotency_key: str | None = None,
        *,
        client: str | None = None,
        in_pieces: bool = True,
    ) -> AsyncGenerator[str | ConversationTurn | Reply, None]:
        """Like `turn`, in pieces; closing the generator drops the turn. Where none are wanted, the reply comes alone.

        Yields:
            Pieces of text; a turn for each call of a tool that is about to be made, and for what the tool said; and the
            reply at last, when it is stored.
        """
        check_message(message, self.limits)
        check_key(idempotency_key)
        digest = hashlib.sha256(message.encode()).hexdigest()
        conversation = await self._owned(conversation_id, owner)
        if idempotency_key is not None:
            known = await self._store.answered(conversation_id, idempotency_key)
            if known is not None:
                reply = self._answering.replay(known, digest)
                if reply.response:
                    yield reply.response
                yield reply
                return
        active = await self._not_over(conversation)
        self._require_serving()
        attempt = Attempt(new_id("turn_"), conversation_id, self.clock.now(), key=idempotency_key, digest=digest)
        context = told_to_the_agent(conversation.user_id, conversation.context, self.limits)
        turn = Turn(client=owner if client is None else client, in_pieces=in_pieces)
        turn.task = task = asyncio.create_task(self._answering.run(turn, active, attempt, message, context))
        self._turns.add(turn)
        task.add_done_callback(lambda _: self._turns.remove(turn))
        try:
            while (piece := await turn.pieces.get()) is not None:
                yield piece
            if task.cancelled():
                raise turn.cut or TurnFailed("the engine was closed while it answered")
            yield task.result()
        finally:
            task.cancel()
            await finished(asyncio.wait([task], timeout=STUBBORN))
            if task.done() and not task.cancelled():
                task.exception()  # seen

    async def history(self, conversation_id: str, owner: str = "", after: int = 0, limit: int | None = None) -> History:
        """What was said, also after the end. Reading is no activity.

        Args:
            conversation_id: of which conversation.
            owner: see `owner_of`.
            after: turns to leave out from the beginning.
            limit: turns at most.

        Raises:
            UnknownConversation, StoreFailed: there is nothing to read.
        """
        conversation = await self._owned(conversation_id, owner)
        with suppress(ConversationOver):
            await self._not_over(conversation)
        conversation = await self._owned(conversation_id, owner)
        turns = await self._store.turns(conversation_id, after, limit)
        lost = await self._store.interrupted(conversation_id)
        return History(conversation_id, turns, conversation.status.value, conversation.turns, lost)

    async def end(self, conversation_id: str, owner: str = "") -> Conversation:
        """End a conversation; a turn that runs is cut. Ending it again changes nothing.

        Raises:
            UnknownConversation, StoreFailed: it cannot be ended.
        """
        await self._owned(conversation_id, owner)
        conversation = await finished(self._store.end(conversation_id, self.clock.now(), Status.ENDED, "ended"))
        if conversation is None:
            raise UnknownConversation
        self._ongoing.leave(conversation)
        return conversation

    @asynccontextmanager
    async def work(self, client: str = "") -> AsyncIterator[Agent]:
        """A place among the turns that run, for a request of a client that belongs to no conversation: who answers it.

        It waits, is refused, and is cut by a drain as turns are.

        Raises:
            QueueFull, Unavailable: not now.
            TurnTimeout: it took too long.
        """
        self._require_serving()
        task = asyncio.current_task()
        turn = Turn(task, client)
        self._turns.add(turn)
        try:
            async with self._answering.in_time(), self.gate.place(client), self._forks.in_use() as served:
                yield served.agent
        except asyncio.CancelledError:
            if turn.cut is None or task is None:
                raise
            task.uncancel()
            raise turn.cut from None
        finally:
            self._turns.remove(turn)

    async def sweep(self) -> None:
        """Expire what nobody writes to any more, and delete what was over for long. A server calls it now and then."""
        await self._ongoing.expire_all()
        await self._store.purge(self.clock.now() - timedelta(seconds=self.limits.keep_seconds))

    async def _owned(self, conversation_id: str, owner: str) -> Conversation:
        # Of what was never an id here, databases take some for an error of their own (a NUL).
        conversation = await self._store.find(conversation_id) if conversation_id.isprintable() else None
        if conversation is None or not hmac.compare_digest(conversation.owner.encode(), owner.encode()):
            raise UnknownConversation
        if conversation.status is not Status.ONGOING and conversation_id in self._ongoing:
            self._ongoing.leave(conversation)  # another process ended it
        return conversation

    async def _not_over(self, conversation: Conversation) -> Active:
        """A conversation that is not over; one that nobody wrote to for too long is over from now on."""
        require_ongoing(conversation)
        self._ongoing.see(conversation)
        await self._ongoing.expire(conversation.id)
        if conversation.id not in self._ongoing:
            conversation = await self._owned(conversation.id, conversation.owner)
            require_ongoing(conversation)
        return self._ongoing.see(conversation)

    def _require_serving(self) -> None:
        if self._state != "serving":
            raise Unavailable(f"the server is {self._state}; try again in a moment", retry_after=5)
