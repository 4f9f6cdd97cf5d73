"""The tables that conversations are kept in, and what stands in their rows.

Invariant: texts of people and models stand inside JSON that is plain ASCII: a NUL or half a surrogate pair in a reply
is no database's problem.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .store import Attempt, AttemptState, Conversation, Status, StoredTurn

VERSION = 1
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, status TEXT NOT NULL, reason TEXT,
        started_at TEXT NOT NULL, last_activity TEXT NOT NULL, over_at TEXT,
        turns INTEGER NOT NULL, turn_count INTEGER NOT NULL, about TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS turns (
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE, place INTEGER NOT NULL,
        role TEXT NOT NULL, at TEXT NOT NULL, said TEXT NOT NULL, PRIMARY KEY (conversation_id, place))""",
    """CREATE TABLE IF NOT EXISTS attempts (
        id TEXT PRIMARY KEY, conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        server BIGINT NOT NULL, begun_at TEXT NOT NULL, after_turns INTEGER NOT NULL,
        key TEXT, digest TEXT NOT NULL, state TEXT NOT NULL, reply TEXT)""",
    """CREATE TABLE IF NOT EXISTS starts (
        owner TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE, PRIMARY KEY (owner, key))""",
    "CREATE INDEX IF NOT EXISTS starts_of ON starts (conversation_id)",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_running ON attempts (conversation_id) WHERE state = 'running'",
    """CREATE UNIQUE INDEX IF NOT EXISTS one_for_a_key ON attempts (conversation_id, key)
        WHERE key IS NOT NULL AND state <> 'interrupted'""",
    "CREATE INDEX IF NOT EXISTS attempts_of ON attempts (conversation_id)",
    "CREATE INDEX IF NOT EXISTS by_status ON conversations (status, over_at)",
)

COLUMNS = "id, owner, status, reason, started_at, last_activity, over_at, turns, turn_count, about"
"""Of `conversations`, for `conversation_of`."""

ATTEMPT = "id, conversation_id, begun_at, after_turns, key, digest, state, reply"
"""Of `attempts`, for `attempt_of`."""


def conversation_of(row: Sequence[Any]) -> Conversation:
    """The conversation in a row of `COLUMNS`."""
    id_, owner, status, reason, started_at, last_activity, over_at, count, turn_count, about = row
    told = json.loads(about)
    return Conversation(
        id=id_,
        owner=owner,
        started_at=to_time(started_at),
        last_activity=to_time(last_activity),
        user_id=told["user_id"],
        context=told["context"],
        status=Status(status),
        reason=reason,
        over_at=None if over_at is None else to_time(over_at),
        turns=count,
        turn_count=turn_count,
    )


def turn_of(role: str, at: str, said: str) -> StoredTurn:
    """The turn in a row."""
    what = json.loads(said)
    return StoredTurn(role, what["content"], to_time(at), what.get("data", {}))


def attempt_of(row: Sequence[Any]) -> Attempt:
    """The attempt in a row of `ATTEMPT`."""
    id_, conversation_id, begun_at, after, key, digest, state, reply = row
    told = None if reply is None else json.loads(reply)
    return Attempt(id_, conversation_id, to_time(begun_at), after, key, digest, AttemptState(state), told)


def to_json(value: Any) -> str:
    """For a column of text; what JSON has no form for becomes text."""
    return json.dumps(value, default=str)


def to_text(at: datetime) -> str:
    """Sorts like the time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def to_time(text: str) -> datetime:
    """The time that `to_text` wrote."""
    return datetime.fromisoformat(text)
