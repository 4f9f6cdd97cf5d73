import importlib.util
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_command import stub_checkpoint
from stateset_agents.cli.serve import app


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_checkpoint(tmp_path_factory.mktemp("stub") / "checkpoint")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, ["there is no token", "GRPO_AUTH_TOKEN", "--insecure-no-auth"]),  # noqa: S104
        (["--cors-origins", "myapp.com"], 2, ["'myapp.com'", "https://myapp.com"]),
        (["--auth-token", "two words"], 2, ["auth token"]),
        (["--auth-token-file", "nowhere"], 2, ["nowhere cannot be read"]),
        (["--port", "99999"], 2, ["--port"]),
        (["--max-conversations", "0"], 2, ["--max-conversations"]),
        (["--store", "mysql://host/db"], 2, ["no store for mysql://"]),
        (["--store", ""], 2, ["--store is empty"]),
        (["--log-level", "LOUD"], 2, ["LOUD", "DEBUG"]),
        (["--config-file", "nowhere.yaml"], 2, ["nowhere.yaml"]),
        (["--host", "no.such.host.invalid", "--insecure-no-auth"], 2, ["--host no.such.host.invalid"]),
    ],
)
def test_a_mistake_ends_before_anything_is_served(
    tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: list[str]
):
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, [str(stub), "--port", "0", *arguments])
    assert ended.exit_code == code, ended.stderr
    assert all(word in ended.stderr for word in words), ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_token_that_came_out_empty_opens_no_server(tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, [str(stub), "--port", "0"], env={"GRPO_AUTH_TOKEN": ""})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "GRPO_AUTH_TOKEN is empty" in ended.stderr


def test_a_port_that_is_taken_ends_with_another_to_try(tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = CliRunner().invoke(app, [str(stub), "--host", "127.0.0.1", "--port", str(port)])
    assert ended.exit_code == 2
    assert f"port {port} of 127.0.0.1 is in use" in ended.stderr
    assert "choose another one with --port, or any that is free with --port 0" in ended.stderr


def test_a_port_that_is_for_root_alone_ends_with_another_to_try():
    from stateset_agents.api.server import _why_not

    told = _why_not("localhost", 80, PermissionError(13, "Permission denied"))
    assert "port 80 is for root alone" in told
    assert "--port 8080" in told


def test_without_the_extra_it_says_what_to_install(stub: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else found(name))
    ended = CliRunner().invoke(app, [str(stub)])
    assert ended.exit_code == 2
    assert 'pip install "grpo-agent-framework[serve]"' in ended.stderr


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/tea", "tea"), ("runs/tea/final_model", "tea"), ("runs/tea/checkpoints/step-4", "tea"), ("tea/", "tea")],
)
def test_a_model_goes_by_the_name_of_its_run(path: str, name: str):
    from stateset_agents.cli.serve import _name_of

    assert _name_of(Path(path)) == name
