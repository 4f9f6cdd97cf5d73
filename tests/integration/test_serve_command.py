"""`grpo-serve` as an operator runs it: flags, signals, exit codes."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest

from serve_command import run, served, stub_checkpoint
from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.checkpoints import FileEntry, Manifest
from stateset_agents.core.signals import SAME_SIGNAL

pytestmark = pytest.mark.slow  # each starts a process that loads torch, or several


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_checkpoint(tmp_path_factory.mktemp("stub") / "checkpoint")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint of the tiny model; its replies take a while."""
    path = tmp_path_factory.mktemp("tiny") / "saved"

    async def made() -> None:
        agent = MultiTurnAgent.from_model("tiny", max_new_tokens=60)
        talk = ConversationEnvironment([{"user_responses": ["Hi"]}], max_turns=1)
        await train(
            agent, talk, num_episodes=2, save_path=str(path), config_overrides={"num_generations": 2}, quiet=True
        )

    asyncio.run(made())
    return path


def test_what_is_no_checkpoint_ends_with_its_path(tmp_path: Path):
    ended = run("nowhere", cwd=tmp_path)
    assert (ended.returncode, "nowhere" in ended.stderr) == (3, True)


def test_a_store_that_another_server_has_is_refused(tmp_path: Path, stub: Path):
    with served(tmp_path, stub) as server:
        ended = run(str(stub), "--port", "0", cwd=tmp_path)
        assert ended.returncode == 2, ended.stderr
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_the_first_line_says_where_what_and_who_may_come_in(tmp_path: Path, stub: Path):
    with served(tmp_path, stub) as server:
        assert f"{server.url} serves checkpoint, step 7; no token is needed" in server.first_line
        assert server.first_line.rstrip().endswith("; conversations are kept in grpo-serve/conversations.sqlite3")
    environment = {"GRPO_AUTH_TOKEN": "token-of-the-environment", "GRPO_SERVER_HOST": "127.0.0.1"}
    with served(tmp_path, stub, "--model-id", "tea", **environment) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert "serves tea, step 7; a token is needed" in server.first_line
        assert httpx.post(f"{server.url}/chat/start", json={}).status_code == 401
        known = {"Authorization": "Bearer token-of-the-environment"}
        assert httpx.post(f"{server.url}/chat/start", json={}, headers=known).status_code == 200


def test_tokens_of_flags_and_files_are_never_written_anywhere(tmp_path: Path, stub: Path):
    (tmp_path / "tokens").write_text("token-of-the-file\n")
    given = ["--auth-token", "token-of-a-flag", "--auth-token-file", str(tmp_path / "tokens")]
    with served(tmp_path, stub, *given, "--log-conversations", "--debug") as server:
        told = ""
        for token in ("token-of-the-file", "token-of-a-flag"):
            headers = {"Authorization": f"Bearer {token}"}
            place = httpx.post(f"{server.url}/chat/start", json={"user_id": token}, headers=headers).headers["location"]
            httpx.post(f"{server.url}{place}/message", json={"message": f"I say {token}"}, headers=headers)
            told += httpx.get(f"{server.url}/metrics", headers=headers).text
        told += httpx.get(f"{server.url}/health").text + server.first_line
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        told += server.errors.read_text() + (tmp_path / "grpo-serve" / "conversations.jsonl").read_text()
    assert "ps" in told
    assert "token-of" not in told
    folder = tmp_path / "grpo-serve"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())


def test_a_greeting_of_ones_own_and_none(tmp_path: Path, stub: Path):
    for greeting in ("Welcome to the tea shop.", ""):
        with served(tmp_path, stub, "--greeting", greeting) as server:
            started = httpx.post(f"{server.url}/chat/start", json={}).json()
            history = httpx.get(f"{server.url}/chat/{started['conversation_id']}/history").json()
        assert started["message"] == greeting
        assert [turn["content"] for turn in history["turns"]] == ([greeting] if greeting else [])


def test_conversations_are_there_after_a_restart(tmp_path: Path, stub: Path):
    with served(tmp_path, stub) as server:
        place = httpx.post(f"{server.url}/chat/start", json={}).headers["location"]
        httpx.post(f"{server.url}{place}/message", json={"message": "Hi"})
        before = httpx.get(f"{server.url}{place}/history").json()
        server.process.kill()
    with served(tmp_path, stub) as server:
        assert httpx.get(f"{server.url}{place}/history").json() == before
        assert httpx.post(f"{server.url}{place}/message", json={"message": "Again"}).json()["turn_count"] == 3


class Talkers:
    """Threads that talk until they are told to stop, and what they were answered."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.stop = threading.Event()
        self.statuses: list[int] = []
        self.cut: list[str] = []
        self._threads = [threading.Thread(target=self._talk, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _talk(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:
            try:
                place = http.post("/chat/start", json={}).headers["location"]
            except (httpx.HTTPError, KeyError):
                return
            while not self.stop.is_set():
                try:
                    answer = http.post(f"{place}/message", json={"message": "Hi", "stream": number % 2 == 0})
                except httpx.ConnectError:
                    return  # the server has gone
                except httpx.HTTPError as error:
                    self.cut.append(repr(error))
                    return
                self.statuses.append(answer.status_code)
                if answer.status_code == 200 and number % 2 == 0 and "event: done" not in answer.text:
                    self.cut.append(answer.text[-200:])
                if answer.status_code == 503:
                    return


def test_sigterm_under_load_cuts_no_turn_and_ends_with_0(tmp_path: Path, tiny: Path):
    with served(tmp_path, tiny) as server:
        talkers = Talkers(server.url, 12)
        while len(talkers.statuses) < 12:
            time.sleep(0.02)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # as `timeout` does: to the process, then to its group
        assert server.wait() == 0
        assert time.monotonic() - begun < 20
        talkers.stop.set()
        talkers.join()
    assert talkers.cut == []
    assert set(talkers.statuses) == {200, 503}


def test_a_second_signal_ends_at_once(tmp_path: Path, tiny: Path):
    with served(tmp_path, tiny, "--max-new-tokens", "4000") as server:
        body = {"model": "saved", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4000}
        asking = threading.Thread(target=_quietly, args=(f"{server.url}/v1/chat/completions", body), daemon=True)
        asking.start()
        while httpx.get(f"{server.url}/health").json()["queue"]["running"] == 0:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGINT)
        while httpx.get(f"{server.url}/readyz").json()["phase"] != "draining":
            time.sleep(0.02)
        time.sleep(2 * SAME_SIGNAL)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 75
        assert time.monotonic() - begun < 3


def _quietly(url: str, body: object) -> None:
    try:
        httpx.post(url, json=body, timeout=60)
    except httpx.HTTPError:
        return


def test_a_signal_while_the_model_is_loading_ends_with_0(tmp_path: Path, tiny: Path):
    with served(tmp_path, tiny, ready=False) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.errors.read_text()


def test_a_model_that_cannot_be_loaded_ends_with_its_error(tmp_path: Path, tiny: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"\x00" * (tiny / "model.safetensors").stat().st_size)
    ended = run(str(broken), "--port", "0", cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr


def test_sighup_takes_another_checkpoint_without_dropping_a_turn_and_keeps_the_old_one_if_it_is_damaged(
    tmp_path: Path, tiny: Path
):
    place = tmp_path / "run"

    def put(step: int, damage: bool = False) -> None:
        """Another checkpoint in the place of the first: as a whole, as training writes one."""
        made = tmp_path / f"made-{step}"
        shutil.copytree(tiny, made)
        progress = json.loads((made / "progress.json").read_text())
        (made / "progress.json").write_text(json.dumps({**progress, "step": step}))
        _sign(made)
        if damage:
            weights = bytearray((made / "model.safetensors").read_bytes())
            weights[-100] ^= 1
            (made / "model.safetensors").write_bytes(weights)
        if place.exists():
            place.rename(tmp_path / f"before-{step}")
        made.rename(place)

    put(1)
    with served(tmp_path, place) as server:

        def health() -> dict[str, object]:
            told: dict[str, object] = httpx.get(f"{server.url}/health", timeout=30).json()
            return told

        def reloaded(expected: dict[str, object]) -> None:
            deadline = time.monotonic() + 30
            while not expected.items() <= health().items():
                assert time.monotonic() < deadline, health()
                time.sleep(0.05)

        assert (health()["policy_version"], health()["reloads"]) == (1, 0)
        talkers = Talkers(server.url, 4)
        while len(talkers.statuses) < 4:
            time.sleep(0.02)
        put(2)
        server.process.send_signal(signal.SIGHUP)
        reloaded({"policy_version": 2, "reloads": 1, "last_reload": "ok"})
        put(3, damage=True)
        server.process.send_signal(signal.SIGHUP)
        reloaded({"policy_version": 2, "reloads": 1, "last_reload": "failed: the checkpoint before it is still served"})
        seen = len(talkers.statuses)
        while len(talkers.statuses) < seen + 4:
            time.sleep(0.02)
        talkers.stop.set()
        talkers.join()
        assert (set(talkers.statuses), talkers.cut) == ({200}, [])
        assert "grpo_serve_policy_version 2.0" in httpx.get(f"{server.url}/metrics").text


def _sign(folder: Path) -> None:
    """Write the manifest anew, as for a checkpoint that was made like this."""
    manifest = Manifest.read(folder)
    (folder / "manifest.json").unlink()
    files = {
        str(file.relative_to(folder)): FileEntry(file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in folder.rglob("*")
        if file.is_file()
    }
    replace(manifest, files=files).write(folder)


def test_help_and_version_load_neither_torch_nor_fastapi(tmp_path: Path):
    import subprocess
    import sys

    look = "import sys; sys.argv = ['grpo-serve', '--help']\nfrom stateset_agents.cli.serve import main\n"
    look += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    look += "print(sorted({'torch', 'fastapi', 'uvicorn', 'starlette', 'prometheus_client'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, env=os.environ)
    assert ended.stdout.rstrip().endswith("[]")
