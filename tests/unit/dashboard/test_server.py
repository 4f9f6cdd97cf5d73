"""The questions that the page asks, over a real socket, and who may ask them."""

import http.client
import json
import os
import signal
import subprocess
import sys

import pytest

from dashboard_site import make_run
from stateset_agents.dashboard import runs
from stateset_agents.dashboard.access import Guard, host_headers

QUESTIONS = ("overview", "series", "step", "groups", "group", "config", "checkpoints", "verify", "events")


def test_the_runs_of_a_folder_are_listed_with_how_they_stand(site, one_run):
    answer = site(one_run.parent).ask("runs")
    (run,) = answer["runs"]
    assert answer["folder"] == "runs"
    assert (run["name"], run["step"], run["status"]["state"]) == ("one", 20, "finished")
    assert run["reward"] == pytest.approx(0.399)
    assert run["checkpoint"] is None
    assert len(run["spark"]) == 20


def test_a_list_of_runs_reads_those_that_changed(site, one_run, monkeypatch):
    make_run(one_run.parent / "two", 3)
    served, read, real = site(one_run.parent), [], runs.sampled_rows
    monkeypatch.setattr(runs, "sampled_rows", lambda path, most: read.append(path.parent.name) or real(path, most))
    assert [run["step"] for run in served.ask("runs")["runs"]] == [20, 3]
    assert served.ask("runs")["runs"][1]["step"] == 3
    assert sorted(read) == ["one", "two"]
    with (one_run.parent / "two" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4}\n')
    assert [run["step"] for run in served.ask("runs")["runs"]] == [20, 4]
    assert read[2:] == ["two"]


def test_a_run_is_shown_by_itself_too(site, one_run):
    assert [run["name"] for run in site(one_run).ask("runs")["runs"]] == ["one"]


def test_the_overview_says_whether_it_learns_and_what_is_wrong(site, one_run):
    answer = site(one_run).ask("overview", run="one")
    # 6 steps of 20 are a third: 0.235 on average in the first, 0.375 in the last
    assert answer["learning"]["verdict"] == "yes"
    assert answer["learning"]["difference"]["before"] == pytest.approx(0.235)
    assert answer["learning"]["difference"]["after"] == pytest.approx(0.375)
    assert (answer["rows"], answer["skipped"], answer["complete"]) == (20, 0, True)
    assert answer["health"]["status"] == "HEALTHY"
    assert answer["last"]["step"] == 20
    assert answer["report"] is None


def test_curves_come_by_step_tokens_and_hours(site, one_run):
    answer = site(one_run).ask("series", run="one", key=["reward_mean", "loss", "nothing"])
    assert answer["step"] == list(range(1, 21))
    assert answer["tokens"][:2] == [100, 200]
    assert answer["hours"][-1] == pytest.approx(20 * 36 / 3600)
    assert list(answer["series"]) == ["reward_mean", "loss"]
    assert "low" not in answer["series"]["loss"]
    # the running mean at step 10 is over steps 8 to 12
    assert answer["trend"]["mean"][9] == pytest.approx(0.3 - 0.001 / 5, abs=1e-5)
    assert answer["trend"]["low"][9] < answer["trend"]["mean"][9] < answer["trend"]["high"][9]


def test_a_part_of_a_curve_and_few_points_of_it(site, one_run):
    answer = site(one_run).ask("series", run="one", key="reward_mean", first=5, last=14, points=5)
    assert answer["step"] == [6, 8, 10, 12, 14]
    assert answer["series"]["reward_mean"]["mean"][0] == pytest.approx(0.255)  # steps 5 and 6
    assert answer["series"]["reward_mean"]["low"][0] == pytest.approx(0.251)
    assert answer["series"]["reward_mean"]["high"][0] == pytest.approx(0.259)
    assert site(one_run).ask("series", run="one", key="loss", first=50, last=60)["step"] == []


def test_conversations_are_found_by_what_they_are(site, one_run):
    served = site(one_run)
    everything = served.ask("groups", run="one")
    assert (everything["total"], everything["conversations"]) == (40, 80)
    assert everything["scenarios"] == ["order", "price"]
    of_step = served.ask("groups", run="one", step=3)["groups"]
    assert [(one["scenario"], one["group"]) for one in of_step] == [("price", 0), ("order", 1)]
    assert [sample["reward"] for sample in of_step[1]["samples"]] == [0.3, None]
    assert served.ask("groups", run="one", scenario="price", low=0.4, high=0.6)["total"] == 20
    assert served.ask("groups", run="one", low=0.6)["total"] == 0
    assert served.ask("groups", run="one", phase="eval")["total"] == 0
    assert served.ask("groups", run="one", order="newest")["groups"][0]["step"] == 20
    assert len(served.ask("groups", run="one", start=39)["groups"]) == 1


def test_a_group_has_its_conversations_word_for_word(site, one_run):
    answer = site(one_run).ask("group", run="one", step=3, phase="train", group=0)
    assert [one["reward"] for one in answer["conversations"]] == [0.1, 0.5]
    assert [turn["content"] for turn in answer["conversations"][0]["turns"]] == ["Hi.", "Hello."]


def test_a_step_is_shown_whole_and_a_config_without_secrets(site, one_run):
    (one_run / "config.yaml").write_text(
        "agent:\n  api_key: sk-123456789012345678\n  temperature: 0.5\nrewards:\n- type: x\n"
    )
    served = site(one_run)
    assert served.ask("step", run="one", step=7)["reward_mean"] == pytest.approx(0.271)
    values = served.ask("config", run="one")["values"]
    assert values == {"agent.api_key": "***", "agent.temperature": 0.5, "rewards[0].type": "x"}


@pytest.mark.parametrize(
    "text", ["", "- a list", "a: [", "a: !!python/object:os.system {}", "a: \x00", "\ud800", "a: &x [*x]", "[" * 3000]
)
def test_a_config_that_is_none_says_so(site, one_run, text):
    (one_run / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    answer = site(one_run).ask("config", run="one")
    assert answer["problem"]
    assert answer["values"] == {}


def test_a_run_is_named_as_it_was_found_and_no_other_way(site, one_run):
    served = site(one_run.parent)
    for question in QUESTIONS:
        for name in (
            "..",
            "../runs/one",
            "/etc",
            "one/../one",
            "one/",
            "ONE",
            "%2e%2e",
            "one\x00",
            "",
            ".",
            "x" * 9000,
        ):
            status, _, body = served.get(f"/api/{question}", run=name)
            assert (status, json.loads(body)) == (404, {"error": "there is no run of that name"}), (question, name)


def test_only_the_files_of_the_page_are_handed_out(site, one_run):
    served = site(one_run)
    elsewhere = ("/../server.py", "/%2e%2e/server.py", "/vendor/../../server.py", "//etc/passwd", "/x")
    for path in (*elsewhere, "/vendor/uplot-1.6.32", "/app.js/", "/vendor/uplot-1.6.32/ORIGIN.md"):
        status, _, body = served.get(path)
        assert (status, body) == (404, b'{"error": "there is no such file"}'), path


@pytest.mark.parametrize(
    ("question", "asked", "complaint"),
    [
        ("series", {"points": "many"}, "points is a whole number, 2 or more"),
        ("series", {"points": "0"}, "points is a whole number, 2 or more"),
        ("series", {"first": "9" * 400}, "first is a whole number"),
        ("step", {}, "step is a whole number"),
        ("step", {"step": "1.5"}, "step is a whole number"),
        ("groups", {"low": "nan"}, "low is a number"),
        ("groups", {"start": "-1"}, "start is a whole number, 0 or more"),
        ("group", {"step": "1"}, "group is a whole number"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_what_was_expected(site, one_run, question, asked, complaint):
    status, _, body = site(one_run).get(f"/api/{question}", run="one", **asked)
    assert (status, json.loads(body)) == (400, {"error": complaint})


@pytest.mark.parametrize(
    ("question", "asked"), [("step", {"step": 99}), ("group", {"step": 99, "group": 0}), ("verify", {"step": 99})]
)
def test_what_is_not_there_is_not_found(site, one_run, question, asked):
    assert site(one_run).get(f"/api/{question}", run="one", **asked)[0] == 404


def test_a_request_to_another_name_is_refused(site, one_run):
    served = site(one_run)
    own = f"127.0.0.1:{served.port}"
    names = [
        "evil.test",
        f"evil.test:{served.port}",
        "127.0.0.1",
        "127.0.0.1:1",
        f"{own}@x",
        f"localhost.evil.test:{served.port}",
        "",
    ]
    for name in names:
        for path in ("/", "/api/runs", "/app.js"):
            status, _, body = served.get(path, headers={"Host": name})
            assert status == 421, name
            assert b"does not go by that name" in body


@pytest.mark.parametrize("names", [[], [b"localhost:1", b"evil.test"], [b"localhost:1", b"localhost:1"]])
async def test_a_request_without_a_name_or_with_two_is_refused_whatever_the_server_lets_through(names):
    async def app(scope, receive, send):
        raise AssertionError("it was let through")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", name) for name in names]}
    await Guard(app, frozenset({"localhost:1"}))(scope, None, send)
    assert sent[0]["status"] == 421


def test_this_machines_own_names_are_answered(site, one_run):
    served = site(one_run)
    for name in ("localhost", "LOCALHOST", "[::1]", "127.0.0.1"):
        assert served.get("/api/runs", headers={"Host": f"{name}:{served.port}"})[0] == 200


def test_the_port_may_be_left_out_where_it_is_that_of_http():
    assert host_headers(["localhost", "::1"], 80) == {"localhost:80", "localhost", "[::1]:80", "[::1]"}


def test_nothing_but_reading_is_possible(site, one_run):
    served = site(one_run)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert [served.get(path, method=method)[0] for path in ("/", "/api/runs", "/x")] == [405] * 3


def test_another_site_can_link_here_and_no_more(site, one_run):
    served = site(one_run)
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert served.get("/api/runs", headers=elsewhere)[0] == 403
    assert served.get("/", headers=elsewhere | {"Sec-Fetch-Mode": "navigate"})[0] == 200


def test_every_answer_tells_the_browser_to_run_nothing_else(site, one_run):
    served = site(one_run)
    answers = [served.get(path) for path in ("/", "/api/runs", "/app.js", "/nothing")]
    answers.append(served.get("/", headers={"Host": "evil.test"}))
    for _, headers, _ in answers:
        headers = {name.lower(): value for name, value in headers.items()}
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_looking_changes_nothing_in_the_run_folder(site, one_run):
    def seen():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (one_run, *one_run.rglob("*"))}

    before = seen()
    served = site(one_run.parent)
    served.ask("runs")
    for question in ("overview", "series", "groups", "config", "checkpoints"):
        served.ask(question, run="one")
    assert seen() == before


def test_a_file_that_goes_away_while_it_is_read_is_told(site, one_run, monkeypatch):
    served = site(one_run)
    served.ask("groups", run="one")
    log = served.library.runs()[0].conversations
    monkeypatch.setattr(log, "update", lambda: (one_run / "trajectories.jsonl").unlink() or True)
    status, _, body = served.get("/api/group", run="one", step=1, phase="train", group=0)
    assert (status, json.loads(body)["error"]) == (
        503,
        "the run folder changed while it was read, or cannot be read: No such file or directory",
    )


def test_changes_are_told_while_a_run_goes_on(site, one_run):
    served = site(one_run)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("GET", "/api/events?run=one", headers={"Host": f"localhost:{served.port}"})
    stream = connection.getresponse()

    def told():
        while not (line := stream.readline()).startswith(b"data:"):
            pass
        return json.loads(line[5:])

    first = told()
    assert (first["rows"], first["complete"], first["state"]) == (20, True, "finished")
    with (one_run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 21, "reward_mean": 0.5}\n{"step": 22, "torn')
    second = told()
    assert second["rows"] == 21
    assert second["metrics"] != first["metrics"]
    connection.close()


def test_the_command_serves_and_ends_with_ctrl_c(one_run):
    command = [sys.executable, "-m", "stateset_agents.cli.dashboard", str(one_run), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        line = process.stdout.readline()
        port = int(line.split("http://localhost:")[1].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/runs", headers={"Host": f"localhost:{port}"})
        assert connection.getresponse().status == 200
        events = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        events.request("GET", "/api/events?run=one", headers={"Host": f"localhost:{port}"})
        events.getresponse().readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        connection.close()
        events.close()
        assert process.stderr.read() == ""
