"""Conversations in PostgreSQL, for several servers that share them.

Invariant: a turn belongs to the server that began it for as long as that server lives. Each holds an advisory lock on a
connection of its own; when it dies, however it dies, the database lets go of the lock, and whoever comes to the
conversation next marks the turn as interrupted. A server that was taken for dead cannot store the turn any more.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import ConfigError
from . import operations
from .errors import StoreFailed
from .finishing import finished
from .operations import Dialect, Operation, Query
from .sql_store import SqlStore
from .tables import VERSION
from .watch import Observe, ignore

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
SECONDS = 10
"""After which the database does not answer."""
_SETTINGS: dict[str, Any] = {
    "connect_timeout": SECONDS,
    "tcp_user_timeout": SECONDS * 1000,
    "keepalives_idle": 30,
    "application_name": "grpo-serve",
    "options": f"-c statement_timeout={SECONDS * 1000}",
}
_MAKING_TABLES = 0x67727074
"""Advisory lock of whoever makes them."""


class PostgresStore(SqlStore):
    """A `ConversationStore` in a PostgreSQL database.

    Args:
        address: `postgresql://...` or `host=... dbname=...`, as libpq has it. The tables are made where its search path
            begins.
        connections: at most, beside the one that says that this server lives.
        observe: hears how long each operation took.

    Raises:
        ConfigError: psycopg is not installed.
    """

    dialect = Dialect(lock=" FOR UPDATE", is_gone="SELECT pg_try_advisory_xact_lock(?)")

    def __init__(self, address: str, connections: int = 8, observe: Observe = ignore) -> None:
        super().__init__(observe)
        try:
            import psycopg
            import psycopg_pool
        except ImportError:
            raise ConfigError(
                'conversations in PostgreSQL need psycopg: pip install "grpo-agent-framework[postgres]"'
            ) from None
        self._errors = psycopg.Error
        try:
            given = psycopg.conninfo.conninfo_to_dict(address)
        except psycopg.Error:
            raise ConfigError("the address of PostgreSQL is none; it looks like postgresql://user@host/name") from None
        self._address = psycopg.conninfo.make_conninfo("", **(_SETTINGS | given))
        self._connect = psycopg.AsyncConnection.connect
        self._opened = False
        self._alive: AsyncConnection[Any] | None = None
        self._reviving = asyncio.Lock()
        self._pool: AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
            self._address, min_size=1, max_size=connections, open=False, timeout=SECONDS
        )

    async def open(self) -> int:
        """See `ConversationStore.open`.

        Raises:
            ConfigError: the database cannot be reached, or its tables were made by another version.
        """
        self._opened = True
        try:
            await self._live()
            await self._pool.open(wait=True, timeout=SECONDS)
            other = await self.run(_prepare())
            if other is not None:
                raise ConfigError(f"the database has schema version {other}; this version reads {VERSION} alone")
            return await self.run(operations.bury(self.dialect, self.server))
        except self._errors as error:
            await self.aclose()
            raise ConfigError(f"PostgreSQL cannot be used: {str(error).strip()}") from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """See `ConversationStore.aclose`."""
        self._opened = False
        await self._pool.close()
        if self._alive is not None:
            await self._alive.close()
            self._alive = None

    async def ping(self) -> None:
        """See `ConversationStore.ping`."""
        await self._check_lock()
        await super().ping()

    async def transaction(self, operation: Operation[Result]) -> Result:
        """See `SqlStore.transaction`."""
        return await finished(self._transaction(operation))

    async def _transaction(self, operation: Operation[Result]) -> Result:
        if not self._opened:
            raise StoreFailed("the store is closed")
        try:
            await self._live()
            async with self._pool.connection() as connection:
                return await _drive(operation, connection)
        except self._errors as error:
            logger.exception("PostgreSQL")
            await self._check_lock()  # what broke this connection may have broken that one
            raise StoreFailed("the server cannot write down what is said; try again later", retry_after=5) from error

    async def _live(self) -> None:
        """Hold a lock that says that this server lives."""
        async with self._reviving:
            if self._alive is None:
                alive = await self._connect(self._address, autocommit=True)
                try:
                    # Another number than before: the database may not know yet that the lock's connection is gone.
                    self.server = secrets.randbits(62) + 1
                    await alive.execute("SELECT pg_advisory_lock(%s)", (self.server,))
                except BaseException:
                    await alive.close()
                    raise
                self._alive = alive

    async def _check_lock(self) -> None:
        """Let go of a lock whose connection is gone; the next transaction takes another."""
        async with self._reviving:
            if self._alive is not None:
                try:
                    await self._alive.execute("SELECT 1")
                except self._errors:
                    await self._alive.close()
                    self._alive = None


def _prepare() -> Operation[int | None]:
    yield Query("SELECT pg_advisory_xact_lock(?)", (_MAKING_TABLES,))
    return (yield from operations.prepare())


async def _drive(operation: Operation[Result], connection: AsyncConnection[Any]) -> Result:
    try:
        query = next(operation)
        while True:
            cursor = await connection.execute(query.sql.replace("?", "%s"), query.values)
            query = operation.send(await cursor.fetchall() if cursor.description else [])
    except StopIteration as stop:
        result: Result = stop.value
        return result
