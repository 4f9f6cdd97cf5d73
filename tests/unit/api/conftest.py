"""Stores that are real, agents that say what they are told to, and clocks that are set by hand."""

import pytest


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, started once."""
    from postgres_server import postgres_server, reason_to_skip

    pytest.importorskip("psycopg_pool", reason="psycopg is not installed")
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    with postgres_server() as server:
        yield server


@pytest.fixture
def fresh_postgres(postgres):
    """The server, with an empty database."""
    import psycopg

    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS attempts, turns, conversations, schema_version")
    return postgres


@pytest.fixture(params=["sqlite", "postgres"])
def make_store(request, tmp_path):
    """Makes a store; each one that it makes has the same tables."""
    from stateset_agents.api import PostgresStore, SqliteStore

    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "conversations.sqlite")
    server = request.getfixturevalue("fresh_postgres")
    return lambda: PostgresStore(server.address)
