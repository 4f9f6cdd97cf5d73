"""Stores that are real, agents that say what they are told to, and clocks that are set by hand."""

import pytest

from postgres_server import fresh_postgres, postgres

__all__ = ["fresh_postgres", "postgres"]


@pytest.fixture(params=["sqlite", "postgres"])
def make_store(request, tmp_path):
    """Makes a store; each one that it makes has the same tables."""
    from stateset_agents.api import PostgresStore, SqliteStore

    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "conversations.sqlite")
    server = request.getfixturevalue("fresh_postgres")
    return lambda: PostgresStore(server.address)
