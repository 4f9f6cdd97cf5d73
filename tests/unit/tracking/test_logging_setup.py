"""Logging: everything in the file, little on the terminal, secrets nowhere."""

import json
import logging
import os
import re
import socket
import threading
import warnings

import httpx2
import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.secrets import Redactor
from stateset_agents.tracking.logging_setup import FILE_ONLY, reset_logging, setup_logging, speaks_json
from stateset_agents.tracking.redaction import redact_config


@pytest.fixture(autouse=True)
def undo():
    level = logging.getLogger().level
    yield
    reset_logging()
    logging.getLogger().setLevel(level)


own = logging.getLogger("stateset_agents.training")
other = logging.getLogger("somelib")


def test_with_a_file_everything_goes_there_and_only_warnings_to_the_terminal(tmp_path, capsys):
    path = tmp_path / "logs" / "train.log"
    setup_logging("info", path)
    own.debug("too fine")
    own.info("step 1")
    other.info("downloading")
    own.warning("the reward is flat")
    lines = path.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO stateset_agents.training: step 1",
        "INFO somelib: downloading",
        "WARNING stateset_agents.training: the reward is flat",
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in lines)
    captured = capsys.readouterr()
    assert captured.err == "WARNING the reward is flat\n"
    assert captured.out == ""
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_the_terminal_gets_this_package_at_its_level_and_warnings_of_others(capsys):
    setup_logging("DEBUG")
    own.debug("fine")
    other.info("noise")
    other.warning("deprecated")
    assert capsys.readouterr().err == "DEBUG fine\nWARNING deprecated\n"


def test_what_the_terminal_is_told_otherwise_is_for_the_file_alone(tmp_path, capsys):
    setup_logging("INFO")
    own.info("self-test", extra=FILE_ONLY)
    setup_logging("INFO", tmp_path / "train.log")
    own.info("self-test", extra=FILE_ONLY)
    assert capsys.readouterr().err == ""
    assert (tmp_path / "train.log").read_text().endswith("INFO stateset_agents.training: self-test\n")


def test_a_second_call_replaces_the_first_and_appends_to_the_same_file(tmp_path, capsys):
    path = tmp_path / "train.log"
    setup_logging("INFO", path)
    own.info("one")
    setup_logging("INFO", path)
    own.info("two")
    assert [line.rsplit(" ", 1)[1] for line in path.read_text().splitlines()] == ["one", "two"]


def test_python_warnings_go_to_the_file_too(tmp_path):
    path = tmp_path / "train.log"
    setup_logging("INFO", path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this will change", FutureWarning, stacklevel=1)
    assert "FutureWarning: this will change" in path.read_text()


def test_a_level_that_does_not_exist_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r'logging.level is "LOUD"(?s:.*)DEBUG, INFO, WARNING'):
        setup_logging("LOUD")


def test_a_log_file_that_cannot_be_written_is_refused_with_the_key_and_the_path(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "train.log", tmp_path):
        with pytest.raises(ConfigError, match=re.escape(f'logging.log_file is "{path}", which cannot be written')):
            setup_logging("INFO", path)


def test_no_secret_reaches_file_or_terminal_not_even_in_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef")
    path = tmp_path / "train.log"
    redactor = setup_logging("INFO", path)
    redactor.add("a-flag-only-token")
    try:
        raise RuntimeError("401 for key 0123456789abcdef0123456789abcdef")
    except RuntimeError:
        own.exception("upload with %s failed", "a-flag-only-token")
    for text in (path.read_text(), capsys.readouterr().err):
        assert "RuntimeError: 401 for key ***" in text
        assert "upload with *** failed" in text
        assert "0123456789abcdef" not in text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("login hf_abcdefghijklmnopqrstuv ok", "login *** ok"),
        ("Authorization: Bearer abcd1234efgh", "Authorization: Bearer ***"),
        ("sk-proj-abcdefghijklmnop1234", "***"),
        ("https://user:pass@example.com/x", "https://***@example.com/x"),
        ("see https://example.com:8000/a@b", "see https://example.com:8000/a@b"),
        ("a risk-averse, task-oriented reply", "a risk-averse, task-oriented reply"),
    ],
)
def test_well_known_forms_of_tokens_are_hidden_and_plain_text_is_not(text, clean):
    assert Redactor()(text) == clean


def test_the_longer_of_two_secrets_goes_first_and_short_values_stay():
    redactor = Redactor.from_environment({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-ijkl", "C_TOKEN": "true"})
    assert redactor("abcdefgh-ijkl abcdefgh true") == "*** *** true"


def test_a_config_is_sent_without_its_secrets():
    config = {"logging": {"wandb": {"project": "p", "api_key": "x"}}, "list": [{"auth_token": "y"}, 3], "token": None}
    assert redact_config(config, Redactor()) == {
        "logging": {"wandb": {"project": "p", "api_key": "***"}},
        "list": [{"auth_token": "***"}, 3],
        "token": None,
    }


def test_json_records_are_one_object_a_line_whatever_they_hold_and_no_secret_is_in_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", 'quo"ted\\secret')
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own: workers can't send half a character
    facts = {"run": "shop", "step": 3}
    setup_logging("INFO", tmp_path / "run.log", form="json", facts=facts)
    assert speaks_json()
    own.info("two\nlines, half a character \ud800 and %s", os.environ["SHOP_PASSWORD"])
    facts["step"] = 4
    try:
        raise ValueError(os.environ["SHOP_PASSWORD"])
    except ValueError:
        own.exception("it failed")
    rows = [json.loads(line) for line in (tmp_path / "run.log").read_text(errors="surrogatepass").splitlines()]
    assert [(row["level"], row["logger"], row["run"], row["step"]) for row in rows] == [
        ("INFO", "stateset_agents.training", "shop", 3),
        ("ERROR", "stateset_agents.training", "shop", 4),
    ]
    assert rows[0]["message"].startswith("two\nlines, half a character ")
    assert rows[0]["message"].endswith(" and ***")
    assert rows[1]["error"].splitlines()[-1] == "ValueError: ***"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"]) for row in rows)
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["it failed"]
    setup_logging("INFO")
    assert not speaks_json()


@pytest.mark.parametrize(("level", "requests"), [("DEBUG", 1), ("INFO", 0)])
def test_a_request_to_a_judge_is_no_line_of_the_log_unless_all_is_asked_for(tmp_path, level, requests):
    """A real request. Mutation: another name in CHATTY."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        setup_logging(level, tmp_path / "train.log")
        httpx2.get(f"http://127.0.0.1:{server.getsockname()[1]}/", trust_env=False)
        thread.join()
    told = (tmp_path / "train.log").read_text()
    assert told.count("HTTP Request: GET") == requests
