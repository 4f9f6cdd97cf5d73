"""Conversations in a SQLite file.

Invariant: a commit is on the disk when it returns (write-ahead log, synchronous FULL), and a file that was deleted or
replaced meanwhile is written no more. Nobody but the file's owner can read it, and one process writes it: the kernel
gives the lock back when that process dies, however it dies.

One thread does all the work, in order, so that the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import ConfigError, RunFolderError
from ..tracking.lock import FolderLock
from . import operations
from .errors import StoreFailed
from .finishing import finished
from .operations import Dialect, Operation
from .sql_store import SqlStore
from .tables import VERSION
from .watch import Observe, ignore

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
ROOM = 1_000_000
"""Bytes that must be free on the disk for the store to be well: about what the turns take that run at once."""


class SqliteStore(SqlStore):
    """A `ConversationStore` in one file.

    Args:
        path: made if it is not there, readable by its owner alone.
        observe: hears how long each operation took.
    """

    dialect = Dialect()

    def __init__(self, path: str | Path, observe: Observe = ignore) -> None:
        super().__init__(observe)
        self.path = Path(path)
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock: FolderLock | None = None
        self._file: tuple[int, int] | None = None

    async def open(self) -> int:
        """See `ConversationStore.open`.

        Raises:
            ConfigError: the file is no store, was made by another version, or another process has it.
        """
        self._thread = ThreadPoolExecutor(1, "conversations")
        try:
            return await self._open()
        except StoreFailed as error:
            await self.aclose()
            raise ConfigError(f"{self.path} cannot be used: {error.__cause__}") from None
        except BaseException:
            await self.aclose()
            raise

    async def _open(self) -> int:
        await self._in_thread(self._connect)
        other = await self.run(operations.prepare())
        if other is not None:
            raise ConfigError(f"{self.path} has schema version {other}; this version reads {VERSION} alone")
        return await self.run(operations.bury(self.dialect, self.server))

    async def aclose(self) -> None:
        """See `ConversationStore.aclose`."""
        if self._thread is not None:
            await self._in_thread(self._disconnect)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def ping(self) -> None:
        """See `ConversationStore.ping`."""
        await self._in_thread(self._require_room)
        await super().ping()

    async def transaction(self, operation: Operation[Result]) -> Result:
        """See `SqlStore.transaction`."""
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
            self._require_its_name()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = _drive(operation, connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result
        except (OSError, sqlite3.Error) as error:
            logger.error("%s: %s", self.path, error)  # noqa: TRY400 - what failed is the disk, and a trace tells nothing
            raise StoreFailed("the server cannot write down what is said; try again later", retry_after=5) from error

    def _connect(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = self.path.resolve()  # whatever link it is called by, it has one lock
            if self.path.exists() and not self.path.is_file():
                raise ConfigError(f"{self.path} cannot be written: it is no file")
            self._lock = FolderLock(self.path.with_name(self.path.name + ".lock"))
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._file = _identity(self.path)
            self._connection = connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
            self._require_ours(connection)
            self.path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except RunFolderError:
            raise ConfigError(f"{self.path} is in use by another server; give each its own file") from None
        except sqlite3.OperationalError as error:
            raise ConfigError(f"{self.path} cannot be used: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is no store of conversations: {error}") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None

    def _require_ours(self, connection: sqlite3.Connection) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"schema_version", "conversations"} <= tables:
            raise ConfigError(f"{self.path} is no store of conversations: it has the tables of another program")

    def _require_room(self) -> None:
        # What `ping` writes has its place in the file already, and would be written on a full disk too.
        free = shutil.disk_usage(self.path.parent).free
        if free < ROOM:
            logger.error("%s: its disk has %d bytes left", self.path, free)
            raise StoreFailed("the server has no room for what is said", retry_after=5)

    def _require_its_name(self) -> None:
        if _identity(self.path) != self._file:
            raise FileNotFoundError("another file has taken its place; put the old one back, or start the server again")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _drive(operation: Operation[Result], connection: sqlite3.Connection) -> Result:
    try:
        query = next(operation)
        while True:
            query = operation.send(connection.execute(query.sql, query.values).fetchall())
    except StopIteration as stop:
        result: Result = stop.value
        return result
