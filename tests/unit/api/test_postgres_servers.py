"""Several servers on one PostgreSQL database, some of which die."""

import asyncio
import sys
from contextlib import asynccontextmanager

import pytest

from api_parts import HandClock, held, said, serving, stub
from stateset_agents.api import PostgresStore
from stateset_agents.api.errors import ConversationOver, StoreFailed, TurnCancelled, TurnRunning
from stateset_agents.core.errors import ConfigError


@asynccontextmanager
async def servers(postgres, *agents, **limits):
    """Services of several servers, on one clock."""
    clock, stores = HandClock(), [PostgresStore(postgres.address) for _ in agents]
    a, b = (serving(agent, store, clock, **limits) for agent, store in zip(agents, stores, strict=True))
    async with a as first, b as second:
        yield first, second


async def kill(store):
    """Cut all connections of a server, as its death would."""
    pids = [c.info.backend_pid for c in (store._alive, *store._pool._pool)]
    async with await store._connect(store._address, autocommit=True) as connection:
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


async def test_a_conversation_goes_on_at_another_server(fresh_postgres):
    async with servers(fresh_postgres, stub(), stub()) as (first, second):
        id_ = (await first.start(owner="me")).conversation_id
        for count, service in enumerate((first, second, first, second), 2):
            assert (await service.turn(id_, f"message {count}", "me", f"key{count}")).turn_count == count
        assert (await first.turn(id_, "message 3", "me", "key3")).replayed
        users = [content for role, content in said(await second.history(id_, "me")) if role == "user"]
        assert users == ["message 2", "message 3", "message 4", "message 5"]


async def test_only_one_server_answers_at_a_time(fresh_postgres):
    agent = held()
    async with servers(fresh_postgres, agent, stub()) as (first, second):
        id_ = (await first.start()).conversation_id
        running = asyncio.create_task(first.turn(id_, "Hi", idempotency_key="k"))
        await agent.begun.acquire()
        for key in (None, "k"):
            with pytest.raises(TurnRunning):
                await second.turn(id_, "Hi", idempotency_key=key)
        agent.go.release()
        assert (await running).turn_count == 2
        assert (await second.turn(id_, "Hi", idempotency_key="k")).replayed


async def test_the_turn_of_a_server_that_died_is_marked_by_the_next_one_that_comes(fresh_postgres):
    agent = held()
    async with servers(fresh_postgres, agent, stub()) as (first, second):
        id_ = (await first.start()).conversation_id
        running = asyncio.create_task(first.turn(id_, "Hi"))
        await agent.begun.acquire()
        await kill(first._store)
        assert (await second.turn(id_, "Hi again")).turn_count == 2
        assert [mark.after for mark in (await second.history(id_)).interrupted] == [1]
        agent.go.release()  # it was not dead, only cut off: what it has to say comes too late
        with pytest.raises((TurnCancelled, StoreFailed)):
            await running
        agent.go.release()
        users = [content for role, content in said(await second.history(id_)) if role == "user"]
        assert users == ["Hi again"]
        assert (await first.turn(id_, "Back")).turn_count == 3


async def test_what_one_server_ended_is_over_for_all_and_frees_its_place(fresh_postgres):
    agent = held()
    async with servers(fresh_postgres, agent, stub(), max_conversations=1) as (first, second):
        id_ = (await first.start()).conversation_id
        running = asyncio.create_task(first.turn(id_, "Hi"))
        await agent.begun.acquire()
        await second.end(id_)
        agent.go.release()
        with pytest.raises(ConversationOver):
            await running
        with pytest.raises(ConversationOver):
            await first.turn(id_, "Hi")
        assert first.active == 0
        await first.start()


async def test_a_conversation_does_not_expire_while_another_server_holds_it(fresh_postgres):
    async with servers(fresh_postgres, stub(), stub(), idle_seconds=60) as (first, second):
        id_ = (await first.start()).conversation_id
        for _ in range(3):
            first.clock.pass_(40)
            await second.turn(id_, "Hi")
        await first.sweep()
        assert (await first.turn(id_, "Hi")).status == "ongoing"
        first.clock.pass_(61)
        await first.sweep()
        assert (await second.history(id_)).status == "expired"


@pytest.mark.slow
async def test_a_database_that_restarts_costs_the_turns_of_that_moment(fresh_postgres):
    agent = held()
    async with serving(agent, PostgresStore(fresh_postgres.address)) as service:
        id_ = (await service.start()).conversation_id
        running = asyncio.create_task(service.turn(id_, "Hi"))
        await agent.begun.acquire()
        await asyncio.to_thread(fresh_postgres.stop)
        agent.go.release()
        with pytest.raises(StoreFailed) as caught:
            await running
        assert caught.value.status == 503
        with pytest.raises(StoreFailed):
            await service.ping()
        await asyncio.to_thread(fresh_postgres.start)
        agent.go.release()
        assert (await service.turn(id_, "Hi")).turn_count == 2


@pytest.mark.parametrize("address", ["postgresql://[", "nonsense", "host"])
def test_an_address_that_is_none(address):
    pytest.importorskip("psycopg_pool")
    with pytest.raises(ConfigError, match="looks like postgresql://"):
        PostgresStore(address)


async def test_a_server_that_is_not_there_is_named_and_its_password_is_not():
    pytest.importorskip("psycopg_pool")
    with pytest.raises(ConfigError, match="PostgreSQL cannot be used") as caught:
        await PostgresStore("postgresql://me:pa55word@127.0.0.1:9/db").open()
    assert "pa55word" not in str(caught.value)


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r'pip install "grpo-agent-framework\[postgres\]"'):
        PostgresStore("postgresql://localhost/x")
