"""What a judge has said, kept by what it was asked.

Invariant: a judgement is found again only for the very same question. Losing the file costs questions, never a run: one
that is damaged, or cannot be written, is told once, left as it is, and memory takes its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_TABLE = "CREATE TABLE IF NOT EXISTS judgements (question TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
_IN_MEMORY = "CREATE TABLE judgements (place INTEGER PRIMARY KEY, question TEXT UNIQUE NOT NULL, answer TEXT NOT NULL)"
_OLDEST = "DELETE FROM judgements WHERE place <= (SELECT MAX(place) FROM judgements) - ?"

KEPT_IN_MEMORY = 20_000
"""Judgements; with what a judge says of a conversation, some tens of MB."""


def question_key(question: Any) -> str:
    """SHA-256 of a question's JSON, keys sorted."""
    canonical = json.dumps(question, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class JudgeCache:
    """A table of JSON values in SQLite.

    Args:
        path: file that is kept between runs, and may be shared by several; None is memory.
        most: judgements that memory holds; the oldest go. A file holds all.

    Raises:
        ValueError: `most` is below 1.
    """

    def __init__(self, path: str | Path | None = None, most: int = KEPT_IN_MEMORY) -> None:
        if most < 1:
            raise ValueError(f"most is {most}; memory must hold at least 1 judgement")
        self.most = most
        self.path = None if path is None else Path(path)
        self._connection: sqlite3.Connection | None = None
        self._broken = False

    def get(self, key: str) -> dict[str, Any] | None:
        """The value of a key; None if there is none that can be read."""
        found = self._try(lambda table: table.execute("SELECT answer FROM judgements WHERE question = ?", (key,)))
        try:
            value = json.loads(found[0]) if found else None
        except (ValueError, TypeError, RecursionError):
            return None  # asked again, and written over
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a value."""
        row = (key, json.dumps(value))
        self._try(
            lambda table: table.execute("INSERT OR REPLACE INTO judgements (question, answer) VALUES (?, ?)", row)
        )
        if self._in_memory:
            self._try(lambda table: table.execute(_OLDEST, (self.most,)))

    def _try(self, action: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> Any:
        """The first row that an action gives, on the file or, where that fails, on memory."""
        try:
            row: Any = action(self._open()).fetchone()
        except (sqlite3.Error, OSError) as error:
            if self._in_memory:
                raise
            logger.warning("the judge's cache %s cannot be used, and memory is used instead: %s", self.path, error)
            self._broken, self._connection = True, None
            return self._try(action)
        return row

    @property
    def _in_memory(self) -> bool:
        return self.path is None or self._broken

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            name: str | Path = ":memory:"
            if self.path is not None and not self._in_memory:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                name = self.path
            # Each statement is a transaction of its own; a second process that writes is waited for.
            connection = sqlite3.connect(name, isolation_level=None, timeout=10, check_same_thread=False)
            weakref.finalize(self, connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_IN_MEMORY if self._in_memory else _TABLE)
            self._connection = connection
        return self._connection
