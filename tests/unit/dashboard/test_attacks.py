"""What lies in a run folder, or asks about it, and means no good or is broken."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest

from dashboard_site import make_run, row
from stateset_agents.core.errors import ConfigError, RunFolderError
from stateset_agents.dashboard import changes
from stateset_agents.dashboard.export import write_export

ABOUT_A_RUN = ("overview", "series", "groups", "config", "checkpoints")
ODD_VALUES = (
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    '"1.5"',
    '"<b>"',
    "[]",
    "[1, [2]]",
    '{"a": {"b": 1}}',
    "1e400",
    "-0.0",
    "1" + "0" * 400,
    "-1e-320",
    '"\\ud800"',
    '"\\u0000"',
)


def answers_everything(served, name="one"):
    """Every question about the run is answered, with strict JSON."""
    for question in ("runs", *ABOUT_A_RUN):
        status, _, body = served.get(f"/api/{question}", run=name)
        assert status == 200, (question, body)
        json.loads(body, parse_constant=no_constant)


def no_constant(text):
    raise AssertionError(f"{text} is no JSON")


@pytest.mark.parametrize("value", ODD_VALUES)
def test_any_value_under_any_key_of_a_row_is_shown_or_left_out(site, tmp_path, value):
    path = make_run(tmp_path / "one", 3)
    keys = {*row(1), "eval_reward_mean", "eval_reward_low", "success_rate", "zero_variance_share", "mismatch_size"}
    keys |= {"failed", "truncated", "step_episodes", "kl", "memory_x", "x_seconds", "breaker_x", "updated"}
    with (path / "metrics.jsonl").open("a") as log:
        for step, key in enumerate(sorted(keys - {"step"}), 4):
            log.write(f'{{"step": {step}, "reward_mean": 0.5, {json.dumps(key)}: {value}}}\n')
        everything = ", ".join(f"{json.dumps(key)}: {value}" for key in sorted(keys - {"step"}))
        log.write(f'{{"step": 999, {everything}}}\n')
    served = site(path)
    answers_everything(served)
    assert served.ask("overview", run="one")["last"]["step"] == 999
    assert served.get("/api/step", run="one", step=999)[0] == 200


@pytest.mark.parametrize("value", ODD_VALUES)
def test_any_value_under_any_key_of_a_conversation_is_shown_or_left_out(site, tmp_path, value):
    path = make_run(tmp_path / "one", 1)
    (line, *_) = (path / "trajectories.jsonl").read_text().splitlines()
    said = json.loads(line)
    with (path / "trajectories.jsonl").open("w") as log:
        for group, key in enumerate(sorted({*said, "tokens", "advantages"} - {"step", "turns", "group"})):
            odd = json.dumps({name: one for name, one in said.items() if name not in (key, "group")})
            log.write(f'{odd[:-1]}, "group": {group}, {json.dumps(key)}: {value}}}\n')
    served = site(path)
    answers_everything(served)
    for found in served.ask("groups", run="one")["groups"]:
        name = {"step": found["step"], "phase": found["phase"], "group": found["group"]}
        assert served.get("/api/group", run="one", **name)[0] == 200, name


@pytest.mark.parametrize("value", [*ODD_VALUES, "-1", "0", "99999999999"])
def test_any_value_in_a_status_is_a_status_or_none(site, tmp_path, value):
    path = make_run(tmp_path / "one", 1)
    status = json.loads((path / "status.json").read_text()) | {"state": "running", "updated": "2020-01-01T00:00:00Z"}
    served = site(path)
    for key in status:
        odd = json.dumps({name: one for name, one in status.items() if name != key})
        (path / "status.json").write_text(f"{odd[:-1]}, {json.dumps(key)}: {value}}}")
        answers_everything(served)


def test_what_is_nested_deeper_than_anybody_reads_is_cut_short(site, tmp_path):
    path = make_run(tmp_path / "one", 1)
    (line, *_) = (path / "trajectories.jsonl").read_text().splitlines()
    served = site(path)
    for depth in (50, 300, 480, 900, 5000):
        deep = '{"a":' * depth + "1" + "}" * depth
        with (path / "metrics.jsonl").open("a") as log:
            log.write(f'{{"step": {depth}, "deep": {deep}}}\n')
        (path / "trajectories.jsonl").write_text(f'{line[:-1]}, "deep": {deep}}}\n')
        (path / "status.json").write_text(deep)
        (path / "config_origins.json").write_text(deep)
        for question in ("runs", *ABOUT_A_RUN):
            assert served.get(f"/api/{question}", run="one")[0] == 200, (question, depth)
        assert served.get("/api/group", run="one", step=1, phase="train", group=0)[0] in (200, 404)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "loop"])
@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "trajectories.jsonl", "config.yaml", "config_origins.json", "status.json", "report.txt"],
)
def test_what_is_no_plain_file_is_named_and_stops_nothing(site, tmp_path, name, kind):
    path = make_run(tmp_path / "runs" / "one", 3)
    secret = tmp_path / "secret"
    secret.write_text("agent:\n  name: elsewhere\n")
    (path / name).unlink(missing_ok=True)
    match kind:
        case "folder":
            (path / name).mkdir()
        case "pipe":
            os.mkfifo(path / name)
        case "link":
            (path / name).symlink_to(secret)
        case "loop":
            (path / name).symlink_to(path / name)
    served = site(tmp_path / "runs")
    answers_everything(served)
    assert all(b"elsewhere" not in served.get(f"/api/{question}", run="one")[2] for question in ABOUT_A_RUN)
    told = served.ask("overview", run="one")["unreadable"]
    main = name not in ("config_origins.json", "report.txt")
    assert [one.split(" is a ")[0] for one in told] == ([name] if main else [])
    write_export(tmp_path / "runs", tmp_path / "page")
    assert "elsewhere" not in (tmp_path / "page" / "data.js").read_text()


@pytest.mark.parametrize("name", ["manifest.json", "reward.json"])
def test_a_checkpoint_with_a_pipe_in_it_stops_nothing(site, tmp_path, name):
    path = make_run(tmp_path / "one", 1)
    saved = path / "checkpoints" / "step-1"
    saved.mkdir(parents=True)
    (saved / "manifest.json").write_text("{}")
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    served = site(path)
    answers_everything(served)
    assert served.ask("verify", run="one", step=1)["good"] is False


@pytest.mark.parametrize(
    ("said", "known"),
    [("0.75", 0.75), ("null", None), ("-1", None), ("0", None), ("1e400", None), ('"1"', None), ("{}", None)],
)
def test_the_attainable_reward_is_that_of_the_newest_save(site, tmp_path, said, known):
    path = make_run(tmp_path / "one", 1)
    for step, text in ((1, "0.5"), (2, said)):
        saved = path / "checkpoints" / f"step-{step}"
        saved.mkdir(parents=True)
        (saved / "reward.json").write_text(f'{{"attainable": {text}}}')
    assert site(path).ask("overview", run="one")["attainable"] == known


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody who may read nothing")
@pytest.mark.parametrize("name", ["metrics.jsonl", "trajectories.jsonl", "config.yaml", "checkpoints", "."])
def test_what_may_not_be_read_is_named(site, name):
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        path = make_run(Path(scratch) / "one", 3)
        (path / "checkpoints").mkdir(exist_ok=True)
        for file in (path, *path.iterdir()):
            file.chmod(0o755 if file.is_dir() else 0o644)
        served = site(path)
        (path / name).chmod(0)
        try:
            os.seteuid(65534)
            if name == ".":
                assert served.get("/api/runs")[0] == 200
                assert served.get("/api/overview", run="one")[0] in (200, 404)
            else:
                answers_everything(served)
                told = served.ask("overview", run="one")["unreadable"]
                files = [] if name == "checkpoints" else [f"{name} cannot be read: Permission denied"]
                assert told == files
        finally:
            os.seteuid(0)
            (path / name).chmod(0o755)


def test_a_run_that_is_deleted_while_it_is_shown_is_gone_and_others_stay(site, tmp_path):
    make_run(tmp_path / "runs" / "one", 3)
    make_run(tmp_path / "runs" / "two", 3)
    served = site(tmp_path / "runs")
    answers_everything(served)
    with listening(served) as stream:
        assert told(stream)["rows"] == 3
        shutil.rmtree(tmp_path / "runs" / "one")
        assert told(stream)["rows"] == 0
    end = time.monotonic() + 10
    while served.get("/api/overview", run="one")[0] != 404:
        assert time.monotonic() < end
        time.sleep(0.1)
    answers_everything(served, "two")
    shutil.rmtree(tmp_path / "runs")
    time.sleep(2.1)
    assert served.ask("runs")["runs"] == []


@contextlib.contextmanager
def listening(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", "/api/events?run=one", headers={"Host": f"localhost:{served.port}"})
        with connection.getresponse() as stream:
            yield stream


def told(stream):
    while not (line := stream.readline()).startswith(b"data:"):
        assert line, "the stream has ended"
    return json.loads(line[5:])


def test_two_hundred_open_pages_are_told_and_cost_what_one_does(site, tmp_path, monkeypatch):
    path = make_run(tmp_path / "one", 3)
    looks, real = [], changes.version
    monkeypatch.setattr(changes, "version", lambda run: looks.append(1) or real(run))
    served = site(path)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(listening(served)) for _ in range(200)]
        assert {told(stream)["rows"] for stream in streams} == {3}
        began, count = time.monotonic(), len(looks)
        with (path / "metrics.jsonl").open("a") as log:
            log.write('{"step": 4}\n')
        assert {told(stream)["rows"] for stream in streams} == {4}
        answers_everything(served)
        assert len(looks) - count <= 3 + 3 * (time.monotonic() - began)
    with contextlib.ExitStack() as stack:
        for _ in range(changes.MOST_LISTENERS):
            stack.enter_context(listening(served))
        status, headers, body = served.get("/api/events", run="one")
        assert (status, headers["retry-after"], body) == (503, "10", b'{"error": "too many pages are open"}')
        answers_everything(served)


def test_clients_that_say_nothing_or_take_nothing_keep_nobody_waiting(site, tmp_path):
    path = make_run(tmp_path / "one", 3)
    with (path / "trajectories.jsonl").open("a") as log:
        said = {"step": 9, "phase": "train", "group": 0, "scenario_id": "long", "turns": [], "text": "x" * 4_000_000}
        log.write(json.dumps(said) + "\n")
    served = site(path)
    asks = f"GET /api/group?run=one&step=9&group=0 HTTP/1.1\r\nHost: localhost:{served.port}\r\n"
    beginnings = ("", "GET", asks, asks + "X: " + "y" * 8000, asks + "\r\n")
    with contextlib.ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            client.sendall(beginnings[number % len(beginnings)].encode())
        began = time.monotonic()
        answers_everything(served)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/runs", *(f"/api/{one}?run=one" for one in ABOUT_A_RUN)])
def test_a_head_is_answered_as_its_get_without_the_body(site, one_run, path):
    served = site(one_run)
    whole, head = served.get(path), served.get(path, method="HEAD")
    assert (head[0], head[2]) == (whole[0], b"")
    assert head[1]["content-type"] == whole[1]["content-type"]


def test_a_head_of_what_never_ends_ends(site, one_run):
    connection = http.client.HTTPConnection("127.0.0.1", site(one_run).port, timeout=5)
    with contextlib.closing(connection):
        for method, path in (("HEAD", "/api/events?run=one"), ("GET", "/api/runs")):
            connection.request(method, path)
            with connection.getresponse() as reply:
                assert reply.status == 200
                reply.read()


def test_no_part_of_a_question_leads_out_of_the_folder(site, one_run):
    served = site(one_run)
    for way in ("../../etc/passwd", "/etc/passwd", "..\\..\\x", "%2e%2e/", "file:///etc/passwd", "\x00", "~root"):
        for question, asked in (
            ("series", {"key": way}),
            ("groups", {"scenario": way}),
            ("groups", {"phase": way}),
            ("groups", {"outcome": way}),
        ):
            status, _, body = served.get(f"/api/{question}", run="one", **asked)
            assert status == 200, (question, asked)
            assert b"root:" not in body
        assert served.get("/api/group", run="one", step=1, group=0, phase=way)[0] == 404
        for question, name in (("step", "step"), ("verify", "step"), ("groups", "start"), ("series", "first")):
            assert served.get(f"/api/{question}", run="one", **{name: way})[0] == 400, (question, name)


@pytest.mark.parametrize("kind", ["file", "used", "link", "in a file", "pipe"])
def test_an_export_goes_into_a_folder_of_its_own_or_nowhere(tmp_path, one_run, kind):
    target = tmp_path / "page"
    (tmp_path / "kept").mkdir()
    match kind:
        case "file":
            target.write_text("mine")
        case "used":
            target.mkdir()
            (target / ".mine").write_text("mine")
        case "link":
            target.symlink_to(tmp_path / "nowhere")
        case "in a file":
            target.write_text("mine")
            target = target / "page"
        case "pipe":
            os.mkfifo(target)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ConfigError, RunFolderError)) as refused:
        write_export(one_run, target)
    assert str(target) in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before
