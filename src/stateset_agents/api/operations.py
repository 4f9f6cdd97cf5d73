"""What a store does to its tables, without a database.

Invariant: each operation is one transaction. It yields the queries and is sent their rows, so that SQLite and
PostgreSQL run the very same steps. At most one attempt of a conversation is running, and at most one of those with the
same key is running or done: the tables refuse it otherwise.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from .errors import ConversationOver, KeyReused, TurnCancelled, TurnRunning, UnknownConversation
from .store import Attempt, AttemptState, Conversation, Start, Status, StoredTurn
from .tables import ATTEMPT, COLUMNS, SCHEMA, VERSION, attempt_of, conversation_of, to_json, to_text, turn_of


@dataclass(frozen=True, slots=True)
class Query:
    """One statement; `?` stands for each of the values."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """Where the databases differ.

    Attributes:
        lock: what makes a SELECT lock its rows.
        is_gone: query that tells whether the process that has a server number is gone; None: all but this one are.
    """

    lock: str = ""
    is_gone: str | None = None


Result = TypeVar("Result")
Rows = Sequence[Sequence[Any]]
Operation = Generator[Query, Rows, Result]


def prepare() -> Operation[int | None]:
    """Make the tables where there are none; returns the version of those that there are if it is another one."""
    for statement in SCHEMA[:1]:
        yield Query(statement)
    versions = yield Query("SELECT version FROM schema_version")
    if versions and versions[0][0] != VERSION:
        return int(versions[0][0])
    for statement in SCHEMA[1:]:
        yield Query(statement)
    if not versions:
        yield Query("INSERT INTO schema_version (version) VALUES (?)", (VERSION,))
    return None


def ping() -> Operation[None]:
    """A write that changes nothing."""
    yield Query("UPDATE schema_version SET version = version")


def bury(dialect: Dialect, me: int, conversation_id: str | None = None) -> Operation[int]:
    """Mark the running attempts of servers that are gone as interrupted.

    The caller is at no turn of this conversation (or of any), so an attempt of its own was left behind too.
    """
    where, values = ("", ()) if conversation_id is None else (" AND conversation_id = ?", (conversation_id,))
    servers = yield Query(f"SELECT DISTINCT server FROM attempts WHERE state = 'running'{where}", values)  # noqa: S608
    found = 0
    for (server,) in servers:
        if server != me and dialect.is_gone is not None:
            ((gone,),) = yield Query(dialect.is_gone, (server,))
            if not gone:
                continue
        lost = yield Query(
            f"SELECT id FROM attempts WHERE state = 'running' AND server = ?{where}",  # noqa: S608
            (server, *values),
        )
        found += len(lost)
        for (attempt,) in lost:
            yield from drop(attempt, interrupted=True)
    return found


def create(
    conversation: Conversation, greeting: StoredTurn | None, start: Start | None = None
) -> Operation[tuple[Conversation, StoredTurn | None]]:
    """See `ConversationStore.create`."""
    about = {"user_id": conversation.user_id, "context": conversation.context}
    count = 0 if greeting is None else 1
    yield Query(
        "INSERT INTO conversations (id, owner, status, started_at, last_activity, turns, turn_count, about)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            conversation.id,
            conversation.owner,
            Status.ONGOING.value,
            to_text(conversation.started_at),
            to_text(conversation.last_activity),
            count,
            count,
            to_json(about),
        ),
    )
    if start is not None:
        mine = yield Query(
            "INSERT INTO starts (owner, key, digest, conversation_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING conversation_id",
            (start.owner, start.key, start.digest, conversation.id),
        )
        if not mine:  # its twin was faster
            yield Query("DELETE FROM conversations WHERE id = ?", (conversation.id,))
            known = yield from begun(start)
            if known is None:
                raise UnknownConversation
            return known
    if greeting is not None:
        yield from _say(conversation.id, 1, greeting)
    return replace(conversation, turns=count, turn_count=count), greeting


def begun(start: Start) -> Operation[tuple[Conversation, StoredTurn | None] | None]:
    """See `ConversationStore.begun`."""
    rows = yield Query(
        "SELECT conversation_id, digest FROM starts WHERE owner = ? AND key = ?", (start.owner, start.key)
    )
    if not rows:
        return None
    ((conversation_id, digest),) = rows
    if digest != start.digest:
        raise KeyReused("this idempotency key began a conversation with another request; use a fresh one for each")
    conversation = yield from find(conversation_id)
    if conversation is None:
        raise UnknownConversation
    said = yield from turns(conversation_id, 0, 1)
    return conversation, said[0] if said and said[0].role == "assistant" else None


def find(conversation_id: str, lock: str = "") -> Operation[Conversation | None]:
    """See `ConversationStore.find`."""
    rows = yield Query(f"SELECT {COLUMNS} FROM conversations WHERE id = ?{lock}", (conversation_id,))  # noqa: S608
    return conversation_of(rows[0]) if rows else None


def ongoing() -> Operation[list[Conversation]]:
    """See `ConversationStore.ongoing`."""
    rows = yield Query(f"SELECT {COLUMNS} FROM conversations WHERE status = 'ongoing'")  # noqa: S608
    return [conversation_of(row) for row in rows]


def turns(conversation_id: str, after: int, limit: int | None) -> Operation[list[StoredTurn]]:
    """See `ConversationStore.turns`."""
    end = 2**31 - 1 if limit is None else min(after + limit, 2**31 - 1)
    rows = yield Query(
        "SELECT role, at, said FROM turns WHERE conversation_id = ? AND place > ? AND place <= ? ORDER BY place",
        (conversation_id, min(after, 2**31 - 1), end),
    )
    return [turn_of(*row) for row in rows]


def interrupted(conversation_id: str) -> Operation[list[Attempt]]:
    """See `ConversationStore.interrupted`."""
    rows = yield Query(
        f"SELECT {ATTEMPT} FROM attempts WHERE conversation_id = ? AND state = 'interrupted'"  # noqa: S608
        " ORDER BY begun_at",
        (conversation_id,),
    )
    return [attempt_of(row) for row in rows]


def answered(conversation_id: str, key: str) -> Operation[Attempt | None]:
    """See `ConversationStore.answered`."""
    rows = yield Query(
        f"SELECT {ATTEMPT} FROM attempts WHERE conversation_id = ? AND key = ? AND state <> 'interrupted'",  # noqa: S608
        (conversation_id, key),
    )
    return attempt_of(rows[0]) if rows else None


def begin(attempt: Attempt, dialect: Dialect, me: int) -> Operation[tuple[Conversation, Attempt]]:
    """See `ConversationStore.begin`."""
    conversation = yield from find(attempt.conversation_id, dialect.lock)
    if conversation is None:
        raise UnknownConversation
    known = None if attempt.key is None else (yield from answered(attempt.conversation_id, attempt.key))
    if known is not None and known.state is AttemptState.DONE:
        return conversation, known
    require_ongoing(conversation)
    yield from bury(dialect, me, attempt.conversation_id)
    running = yield Query(
        "SELECT id FROM attempts WHERE conversation_id = ? AND state = 'running'", (attempt.conversation_id,)
    )
    if running:
        raise TurnRunning("another server is answering this conversation's last message", retry_after=1)
    yield Query(
        "INSERT INTO attempts (id, conversation_id, server, begun_at, after_turns, key, digest, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'running')",
        (
            attempt.id,
            attempt.conversation_id,
            me,
            to_text(attempt.begun_at),
            conversation.turns,
            attempt.key,
            attempt.digest,
        ),
    )
    return conversation, attempt


def commit(
    attempt: Attempt, said: Sequence[StoredTurn], reply: Mapping[str, Any], ends: str | None, dialect: Dialect
) -> Operation[Conversation]:
    """See `ConversationStore.commit`."""
    conversation = yield from find(attempt.conversation_id, dialect.lock)
    if conversation is None:
        raise UnknownConversation
    require_ongoing(conversation)
    if not (yield Query("SELECT id FROM attempts WHERE id = ? AND state = 'running'", (attempt.id,))):
        raise TurnCancelled("another server took this one for dead; send the message again", retry_after=1)
    for place, turn in enumerate(said, conversation.turns + 1):
        yield from _say(conversation.id, place, turn)
    replies = sum(turn.role == "assistant" for turn in said)
    at = to_text(said[-1].timestamp)
    yield Query(
        "UPDATE conversations SET turns = turns + ?, turn_count = turn_count + ?, last_activity = ?, status = ?,"
        " reason = ?, over_at = ? WHERE id = ?",
        (
            len(said),
            replies,
            at,
            (Status.ENDED if ends else Status.ONGOING).value,
            ends,
            at if ends else None,
            conversation.id,
        ),
    )
    if attempt.key is None:
        yield Query("DELETE FROM attempts WHERE id = ?", (attempt.id,))
    else:
        yield Query("UPDATE attempts SET state = 'done', reply = ? WHERE id = ?", (to_json(reply), attempt.id))
    found = yield from find(conversation.id)
    if found is None:
        raise UnknownConversation
    return found


def drop(attempt_id: str, *, interrupted: bool) -> Operation[None]:
    """See `ConversationStore.drop`."""
    if interrupted:
        yield Query("UPDATE attempts SET state = 'interrupted' WHERE id = ? AND state = 'running'", (attempt_id,))
    else:
        yield Query("DELETE FROM attempts WHERE id = ? AND state = 'running'", (attempt_id,))


def end(
    conversation_id: str,
    at: datetime,
    status: Status,
    reason: str,
    if_idle_since: datetime | None,
    dialect: Dialect,
    me: int,
) -> Operation[Conversation | None]:
    """See `ConversationStore.end`."""
    conversation = yield from find(conversation_id, dialect.lock)
    if conversation is None or conversation.status is not Status.ONGOING:
        return conversation
    if if_idle_since is not None:
        yield from bury(dialect, me, conversation_id)
        running = yield Query(
            "SELECT id FROM attempts WHERE conversation_id = ? AND state = 'running'", (conversation_id,)
        )
        if running or conversation.last_activity > if_idle_since:
            return conversation
    yield Query("DELETE FROM attempts WHERE conversation_id = ? AND state = 'running'", (conversation_id,))
    yield Query(
        "UPDATE conversations SET status = ?, reason = ?, over_at = ? WHERE id = ?",
        (status.value, reason, to_text(at), conversation_id),
    )
    return (yield from find(conversation_id))


def purge(before: datetime) -> Operation[int]:
    """See `ConversationStore.purge`."""
    gone = yield Query("SELECT id FROM conversations WHERE status <> 'ongoing' AND over_at < ?", (to_text(before),))
    for (conversation,) in gone:
        yield Query("DELETE FROM attempts WHERE conversation_id = ?", (conversation,))
        yield Query("DELETE FROM turns WHERE conversation_id = ?", (conversation,))
        yield Query("DELETE FROM starts WHERE conversation_id = ?", (conversation,))
        yield Query("DELETE FROM conversations WHERE id = ?", (conversation,))
    return len(gone)


def require_ongoing(conversation: Conversation) -> None:
    """Refuse a conversation that is over.

    Raises:
        ConversationOver: it is.
    """
    if conversation.status is not Status.ONGOING:
        raise ConversationOver(
            conversation.reason or conversation.status.value, conversation.over_at or conversation.last_activity
        )


def _say(conversation_id: str, place: int, turn: StoredTurn) -> Operation[None]:
    said = to_json({"content": turn.content, **({"data": turn.data} if turn.data else {})})
    yield Query(
        "INSERT INTO turns (conversation_id, place, role, at, said) VALUES (?, ?, ?, ?, ?)",
        (conversation_id, place, turn.role, to_text(turn.timestamp), said),
    )
