"""Conversations in a SQLite file.

Invariant: a commit is on the disk when it returns (write-ahead log, synchronous FULL), nobody but the file's owner can
read it, and one process writes it: the kernel gives the lock back when that process dies, however it dies.

One thread does all the work, in order, so that the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import ConfigError, RunFolderError
from ..tracking.lock import FolderLock
from . import operations
from .errors import StoreFailed
from .finishing import finished
from .operations import VERSION, Dialect, Operation, Query
from .store import Attempt, Conversation, Status, StoredTurn

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
_ME = 0
_DIALECT = Dialect()


class SqliteStore:
    """A `ConversationStore` in one file. See there for what the methods promise.

    Args:
        path: made if it is not there, readable by its owner alone.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock: FolderLock | None = None

    async def open(self, now: datetime) -> int:
        """See `ConversationStore.open`.

        Raises:
            ConfigError: the file is no store, was made by another version, or another process has it.
        """
        self._thread = ThreadPoolExecutor(1, "conversations")
        try:
            await self._in_thread(self._connect)
            other = await self._run(operations.prepare())
            if other is not None:
                raise ConfigError(f"{self.path} has schema version {other}; this version reads {VERSION} alone")
            return await self._run(operations.bury(_DIALECT, _ME))
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """See `ConversationStore.aclose`."""
        if self._thread is not None:
            await self._in_thread(self._disconnect)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def ping(self) -> None:
        """See `ConversationStore.ping`."""
        await self._run(operations.ping())

    async def create(self, conversation: Conversation, greeting: StoredTurn | None) -> None:
        """See `ConversationStore.create`."""
        await self._run(operations.create(conversation, greeting))

    async def find(self, conversation_id: str) -> Conversation | None:
        """See `ConversationStore.find`."""
        return await self._run(operations.find(conversation_id))

    async def ongoing(self) -> list[Conversation]:
        """See `ConversationStore.ongoing`."""
        return await self._run(operations.ongoing())

    async def turns(self, conversation_id: str, after: int = 0, limit: int | None = None) -> list[StoredTurn]:
        """See `ConversationStore.turns`."""
        return await self._run(operations.turns(conversation_id, after, limit))

    async def interrupted(self, conversation_id: str) -> list[Attempt]:
        """See `ConversationStore.interrupted`."""
        return await self._run(operations.interrupted(conversation_id))

    async def answered(self, conversation_id: str, key: str) -> Attempt | None:
        """See `ConversationStore.answered`."""
        return await self._run(operations.answered(conversation_id, key))

    async def begin(self, attempt: Attempt) -> tuple[Conversation, Attempt]:
        """See `ConversationStore.begin`."""
        return await self._run(operations.begin(attempt, _DIALECT, _ME))

    async def commit(
        self, attempt: Attempt, turns: Sequence[StoredTurn], reply: Mapping[str, Any], *, ends: str | None = None
    ) -> Conversation:
        """See `ConversationStore.commit`."""
        return await self._run(operations.commit(attempt, turns, reply, ends, _DIALECT))

    async def drop(self, attempt_id: str, *, interrupted: bool = False) -> None:
        """See `ConversationStore.drop`."""
        await self._run(operations.drop(attempt_id, interrupted=interrupted))

    async def end(
        self, conversation_id: str, at: datetime, status: Status, reason: str, *, if_idle_since: datetime | None = None
    ) -> Conversation | None:
        """See `ConversationStore.end`."""
        return await self._run(operations.end(conversation_id, at, status, reason, if_idle_since, _DIALECT, _ME))

    async def purge(self, before: datetime) -> int:
        """See `ConversationStore.purge`."""
        return await self._run(operations.purge(before))

    async def _run(self, operation: Operation[Result]) -> Result:
        return await self._in_thread(self._transaction, operation)

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        if self._thread is None:
            raise StoreFailed("the store is closed")
        return await finished(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    def _transaction(self, operation: Operation[Result]) -> Result:
        connection = self._connection
        if connection is None:
            raise StoreFailed("the store is closed")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = _drive(operation, connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result
        except sqlite3.Error as error:
            logger.exception("%s", self.path)
            raise StoreFailed("the server cannot write down what is said; try again later", retry_after=5) from error

    def _connect(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = FolderLock(self.path.with_name(self.path.name + ".lock"))
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.path.chmod(0o600)
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
            self._connection = connection
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except RunFolderError:
            raise ConfigError(
                f"{self.path} is in use by another server; give each its own, or use PostgreSQL"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is no store of conversations: {error}") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _drive(operation: Operation[Result], connection: sqlite3.Connection) -> Result:
    rows: Sequence[Sequence[Any]] | None = None
    while True:
        try:
            query: Query = operation.send(rows)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        rows = connection.execute(query.sql, query.values).fetchall()
