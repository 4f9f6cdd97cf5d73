"""The file that conversations are kept in."""

import asyncio
import os
import re
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stateset_agents.api import SqliteStore
from stateset_agents.api.errors import StoreFailed
from stateset_agents.api.store import Attempt, Conversation, Start, StoredTurn
from stateset_agents.core.errors import ConfigError

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


async def test_nobody_else_can_read_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    store = SqliteStore(folder / "conversations.sqlite")
    await store.open()
    await store.create(Conversation("conv_1", "", NOON, NOON), None)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == {
        "conversations.sqlite": 0o600,
        "conversations.sqlite-wal": 0o600,
        "conversations.sqlite-shm": 0o600,
        "conversations.sqlite.lock": 0o600,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await store.aclose()


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "conversations.sqlite"
    path.touch(0o666)
    path.chmod(0o666)
    store = SqliteStore(path)
    await store.open()
    await store.aclose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_conversation_is_erased_as_documented_while_the_server_runs(tmp_path):
    document = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    statements = re.search(r'^sqlite3 \S+ "(PRAGMA [^"]*)"$', document, flags=re.MULTILINE)[1]
    path = tmp_path / "conversations.sqlite3"
    store = SqliteStore(path)
    await store.open()
    start = Start("me", "k", "d")
    for id_, key in (("conv_1", start), ("conv_2", None)):
        await store.create(
            Conversation(id_, "me", NOON, NOON, "user123"), StoredTurn("assistant", "Secret!", NOON), key
        )
    by_user = "json_extract(about, '$.user_id') = 'user123'"
    assert f"WHERE {by_user}" in document
    for place in ("id = 'conv_1'", by_user):
        erasing = sqlite3.connect(path, isolation_level=None)
        erasing.executescript(statements.replace("id = '$ID'", place))
        erasing.close()
        assert await store.turns("conv_1") == []
        assert await store.begun(start) is None
        assert (await store.find("conv_2") is None) == (place == by_user)
    assert not any(b"Secret!" in file.read_bytes() for file in tmp_path.iterdir())
    await store.aclose()


async def test_what_is_written_is_on_the_disk(tmp_path):
    store = SqliteStore(tmp_path / "conversations.sqlite")
    await store.open()
    ask = lambda name: store._connection.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    settings = await store._in_thread(lambda: (ask("journal_mode"), ask("synchronous"), ask("foreign_keys")))
    assert settings == ("wal", 2, 1)
    await store.aclose()


async def test_two_servers_do_not_share_it(tmp_path):
    first, second = (SqliteStore(tmp_path / "conversations.sqlite") for _ in range(2))
    await first.open()
    with pytest.raises(ConfigError, match="in use by another server"):
        await second.open()
    await first.ping()
    await first.aclose()
    await second.open()
    await second.aclose()


async def test_a_link_is_another_name_of_the_same_file(tmp_path):
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "conversations.sqlite")
    first, second = SqliteStore(tmp_path / "conversations.sqlite"), SqliteStore(tmp_path / "link.sqlite")
    await first.open()
    with pytest.raises(ConfigError, match="in use by another server"):
        await second.open()
    await first.aclose()


async def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, which are longer than a header. " * 10)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="no store of conversations"):
        await SqliteStore(path).open()
    assert path.read_text().startswith("These are my notes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE turns (degrees INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="no store of conversations: it has the tables of another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_device_is_no_file_and_keeps_its_mode(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o644)
    with pytest.raises(ConfigError, match="cannot be written: it is no file"):
        await SqliteStore(tmp_path / "pipe").open()
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_that_would_be_written_into_a_deleted_file(tmp_path, replaced):
    path = tmp_path / "conversations.sqlite"
    store = SqliteStore(path)
    await store.open()
    path.rename(tmp_path / "away")
    if replaced:
        path.touch()
    for _ in range(2):
        with pytest.raises(StoreFailed):
            await store.create(Conversation("conv_1", "", NOON, NOON), None)
    (tmp_path / "away").rename(path)
    await store.create(Conversation("conv_1", "", NOON, NOON), None)
    await store.aclose()
    await store.open()
    assert (await store.find("conv_1")).id == "conv_1"
    await store.aclose()


async def test_a_file_that_is_locked_or_damaged_is_named_when_it_is_opened(tmp_path):
    path = tmp_path / "conversations.sqlite"
    store = SqliteStore(path)
    await store.open()
    await store.create(Conversation("conv_1", "", NOON, NOON), StoredTurn("assistant", "x" * 100_000, NOON))
    await store.aclose()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match=r"conversations\.sqlite cannot be used: database is locked"):
        await store.open()
    other.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(ConfigError, match=r"conversations\.sqlite .*malformed"):
        await store.open()


async def test_a_database_of_another_version_is_left_alone(tmp_path):
    path = tmp_path / "conversations.sqlite"
    store = SqliteStore(path)
    await store.open()
    await store.aclose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = 2")
    connection.close()
    with pytest.raises(ConfigError, match="schema version 2; this version reads 1 alone"):
        await SqliteStore(path).open()


@pytest.mark.parametrize("name", ["", "sub/x"])
async def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "sub").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        await SqliteStore(tmp_path / name).open()


async def test_a_disk_that_is_full_fails_the_turn_and_keeps_what_there_was(tmp_path):
    store = SqliteStore(tmp_path / "conversations.sqlite")
    await store.open()
    await store.create(Conversation("conv_1", "", NOON, NOON), None)
    attempt = (await store.begin(Attempt("turn_1", "conv_1", NOON)))[1]
    limit = lambda pages: store._connection.execute(f"PRAGMA max_page_count = {pages}")  # noqa: E731
    await store._in_thread(limit, 1)
    long = [StoredTurn("user", "x" * 100_000, NOON), StoredTurn("assistant", "y", NOON)]
    with pytest.raises(StoreFailed) as caught:
        await store.commit(attempt, long, {})
    assert caught.value.status == 503
    assert str(tmp_path) not in str(caught.value)
    assert await store.turns("conv_1") == []
    await store._in_thread(limit, 10**6)
    await store.commit(attempt, long, {})
    assert (await store.find("conv_1")).turns == 2
    await store.aclose()


async def test_a_disk_that_is_nearly_full_is_told_before_a_turn_fails(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "conversations.sqlite")
    await store.open()
    await store.ping()
    monkeypatch.setattr("stateset_agents.api.sqlite_store.ROOM", 2**80)
    with pytest.raises(StoreFailed):
        await store.ping()
    await store.create(Conversation("conv_1", "", NOON, NOON), None)
    await store.aclose()


async def test_the_event_loop_goes_on_while_the_disk_is_slow(tmp_path):
    store = SqliteStore(tmp_path / "conversations.sqlite")
    await store.open()
    other = sqlite3.connect(tmp_path / "conversations.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.ping())
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    await writing
    await store.aclose()


async def test_a_call_that_is_cancelled_is_finished(tmp_path):
    store = SqliteStore(tmp_path / "conversations.sqlite")
    await store.open()
    creating = asyncio.create_task(store.create(Conversation("conv_1", "", NOON, NOON), None))
    await asyncio.sleep(0)
    creating.cancel()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert (await store.find("conv_1")).id == "conv_1"
    await store.aclose()
