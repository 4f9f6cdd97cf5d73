"""A PostgreSQL server of the tests' own, in a temporary folder, behind a Unix socket."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ACCOUNT = "postgres"
"""Who runs it where the tests run as root, which PostgreSQL refuses to do."""


def program(name: str) -> str | None:
    """Where Debian or the PATH has one of PostgreSQL's programs."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(versions[0]) if versions else shutil.which(name)


def reason_to_skip() -> str | None:
    """Why there can be no server; None if there can."""
    if program("initdb") is None or program("postgres") is None:
        return "PostgreSQL is not installed (initdb, postgres)"
    if os.getuid() == 0 and ACCOUNT not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"the tests run as root, and there is no account {ACCOUNT!r} to run PostgreSQL"
    return None


class PostgresServer:
    """A running server; `address` is what libpq takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._as: dict[str, Any] = {"user": ACCOUNT, "group": ACCOUNT} if os.getuid() == 0 else {}
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"host={folder} dbname=postgres user={ACCOUNT}"

    def make(self) -> None:
        command = [program("initdb"), "--pgdata", str(self._folder / "data"), "--username", ACCOUNT, "--auth", "trust"]
        subprocess.run([*command, "--no-sync"], check=True, capture_output=True, cwd="/", **self._as)

    def start(self) -> None:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self._folder), "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [program("postgres"), "-D", str(self._folder / "data"), *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)
        deadline = time.monotonic() + 30
        while not (self._folder / ".s.PGSQL.5432").exists() or not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": connections are ended
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        command = [program("pg_isready"), "--host", str(self._folder), "--dbname", "postgres"]
        return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Make, start and in the end remove one."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # pytest's own folders are closed to other accounts
    if os.getuid() == 0:
        shutil.chown(folder, ACCOUNT, ACCOUNT)
    server = PostgresServer(folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, started once."""
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
        connection.execute("DROP TABLE IF EXISTS attempts, starts, turns, conversations, schema_version")
    return postgres
