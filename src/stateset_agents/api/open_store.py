"""`--store`: which store an operator names.

Invariant: a name is a SQLite file or a PostgreSQL address; one that looks like an address of something else is refused,
and no file of that name is made.
"""

from __future__ import annotations

import re

from ..core.errors import ConfigError
from .postgres_store import PostgresStore
from .sqlite_store import SqliteStore
from .store import ConversationStore
from .watch import Observe, ignore

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://")


def open_store(where: str, observe: Observe = ignore) -> ConversationStore:
    """The store, which is not opened yet.

    Args:
        where: a file, or an address.
        observe: hears how long each operation takes.

    Raises:
        ConfigError: there is no store of this kind, or what it needs is not installed.
    """
    address = _ADDRESS.match(where)
    if address is None:
        if not where.strip():
            raise ConfigError("--store is empty (a variable that is not set?); name a file, or leave it out")
        return SqliteStore(where, observe)
    if address[1] not in ("postgresql", "postgres"):
        raise ConfigError(f"--store: there is no store for {address[1]}://; name a file, or postgresql://...")
    return PostgresStore(where, observe=observe)
