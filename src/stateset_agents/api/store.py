"""What is kept of conversations, and what a store of them promises.

Invariant: what `commit` returned from survives the death of the process: the user's turn, the reply with its steps, the
count and the record of the idempotency key are one transaction, and the reply is sent after it. Of a turn that was
begun and not finished nothing is kept but the mark that it was interrupted.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Status(StrEnum):
    """Where a conversation stands."""

    ONGOING = "ongoing"
    ENDED = "ended"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Conversation:
    """What is known of a conversation beside what was said.

    Attributes:
        id: unguessable, so that knowing it is nearly a permission.
        owner: digest of the token that began it; nobody else is told that it exists.
        started_at, last_activity, over_at: UTC; the last is None while it is ongoing.
        user_id, context: what the client gave.
        status: ongoing, ended or expired.
        reason: why it is over: "ended", "expired" or "turn_limit".
        turns: stored turns, those of the user and of the assistant; steps are part of their reply.
        turn_count: of the assistant's among them, the greeting included.
    """

    id: str
    owner: str
    started_at: datetime
    last_activity: datetime
    user_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.ONGOING
    reason: str | None = None
    over_at: datetime | None = None
    turns: int = 0
    turn_count: int = 0


@dataclass(frozen=True)
class StoredTurn:
    """One message.

    Attributes:
        role: "user" or "assistant".
        content: what was said, or heard.
        timestamp: UTC.
        data: of a reply, where there is any: "steps" that led to it, "metadata" that the agent gave it,
            "stop_reason", and "sampled" where the model wrote something else than what was heard.
    """

    role: str
    content: str
    timestamp: datetime
    data: Mapping[str, Any] = field(default_factory=dict)


class AttemptState(StrEnum):
    """How far an attempt at a turn got."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Attempt:
    """A turn that was begun.

    Attributes:
        id: random.
        conversation_id: whose turn it is.
        begun_at: UTC.
        after: stored turns of the conversation when it began.
        key: idempotency key that the client gave.
        digest: of the message, to tell a repetition from another message with the same key.
        state: where it stands.
        reply: what the client was told, once it is done.
    """

    id: str
    conversation_id: str
    begun_at: datetime
    after: int = 0
    key: str | None = None
    digest: str = ""
    state: AttemptState = AttemptState.RUNNING
    reply: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Start:
    """A request to begin a conversation that may be repeated.

    Attributes:
        owner: whose request it is.
        key: idempotency key that the client gave.
        digest: of the request, to tell a repetition from another one with the same key.
    """

    owner: str
    key: str
    digest: str


class ConversationStore(Protocol):
    """Where conversations are kept. Safe to call from many tasks; never blocks the event loop.

    All methods raise `StoreFailed` where the store cannot be reached, read or written. A call that is cancelled is
    finished, or undone as a whole.
    """

    async def open(self) -> int:
        """Make ready, and mark the turns of processes that are gone as interrupted; returns how many they were."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...

    async def ping(self) -> None:
        """Make sure that the store can be written."""
        ...

    async def create(
        self, conversation: Conversation, greeting: StoredTurn | None, start: Start | None = None
    ) -> tuple[Conversation, StoredTurn | None]:
        """Keep a conversation that begins; with a greeting, it has one turn.

        Returns:
            Both; or those of the conversation that a request with the same owner and key began.

        Raises:
            KeyReused: that request was another one.
        """
        ...

    async def begun(self, start: Start) -> tuple[Conversation, StoredTurn | None] | None:
        """The conversation that a request with this owner and key began, and its greeting.

        Raises:
            KeyReused: that request was another one.
        """
        ...

    async def find(self, conversation_id: str) -> Conversation | None:
        """The conversation of this id."""
        ...

    async def ongoing(self) -> list[Conversation]:
        """All that are not over."""
        ...

    async def turns(self, conversation_id: str, after: int = 0, limit: int | None = None) -> list[StoredTurn]:
        """What was said, in order: at most `limit` turns after the first `after`."""
        ...

    async def interrupted(self, conversation_id: str) -> list[Attempt]:
        """Turns that were begun and lost, in order."""
        ...

    async def answered(self, conversation_id: str, key: str) -> Attempt | None:
        """The attempt that has this idempotency key, running or done."""
        ...

    async def begin(self, attempt: Attempt) -> tuple[Conversation, Attempt]:
        """Note that a turn is under way.

        Returns:
            The conversation as it stands; and the attempt, or the one that is done and has the same key.

        Raises:
            UnknownConversation, ConversationOver: there is none of this id, or it is over.
            TurnRunning: another process is at a turn of it.
        """
        ...

    async def commit(
        self, attempt: Attempt, turns: Sequence[StoredTurn], reply: Mapping[str, Any], *, ends: str | None = None
    ) -> Conversation:
        """Keep a finished turn: what was said, the reply for the attempt's key, and the end if there is a reason.

        Raises:
            ConversationOver: it ended while the turn ran.
            TurnCancelled: another process took this one for dead.
        """
        ...

    async def drop(self, attempt_id: str, *, interrupted: bool = False) -> None:
        """Forget an attempt, or mark it. One that is done, or unknown, stays as it is."""
        ...

    async def end(
        self, conversation_id: str, at: datetime, status: Status, reason: str, *, if_idle_since: datetime | None = None
    ) -> Conversation | None:
        """End a conversation that is ongoing; its running turn is forgotten.

        Args:
            conversation_id: which.
            at: when.
            status: what it is from now on.
            reason: why.
            if_idle_since: leave it as it is if something was said after this, or a turn is running.

        Returns:
            The conversation as it stands; None if there is none.
        """
        ...

    async def purge(self, before: datetime) -> int:
        """Delete the conversations that were over before this; returns how many."""
        ...


def new_id(prefix: str = "conv_") -> str:
    """An id that nobody can guess: 192 random bits."""
    return prefix + secrets.token_urlsafe(24)


def owner_of(token: str | None) -> str:
    """Who a request comes from: a digest of its token, so that no token is stored; "" where there is none."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""
