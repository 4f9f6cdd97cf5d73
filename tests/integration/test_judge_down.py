"""A judge that goes away in the midst of a run and comes back: `when_down: wait` costs time and nothing else."""

import json
import re
import signal
import time

import pytest

from endpoint_server import BROKEN, HANG, Reply
from integration.test_judges import score


def entry(server, **more):
    # One request at a time, so that the failures of a short outage are too few to open the breaker for its 30 s.
    return {
        "type": "llm_judge",
        "base_url": server.base_url,
        "model": "judge",
        "retries": 0,
        "first_wait": 0.3,
        "seconds": 0.5,
        "concurrency": 1,
        "when_down": "wait",
        **more,
    }


class Outage:
    """Answers until a request, then misbehaves for so many seconds."""

    def __init__(self, first, seconds, fault):
        self.first, self.seconds, self.fault = first, seconds, fault
        self.since = None

    def __call__(self, number, body):
        if number >= self.first:
            self.since = self.since or time.monotonic()
            if time.monotonic() - self.since < self.seconds:
                return self.fault
        return score(body)


def status(work):
    try:
        return work.status()
    except FileNotFoundError:
        return {"message": ""}


@pytest.mark.parametrize("fault", [BROKEN, HANG, Reply(429, {})], ids=["500", "hang", "429"])
def test_a_run_whose_judge_was_down_ends_as_one_whose_judge_never_failed(work, endpoint_server, fault):
    healthy = endpoint_server(lambda number, body: score(body))
    work.write(rewards=[entry(healthy)])
    assert work.train("--output-dir", "whole").code == 0
    server = endpoint_server(Outage(6, 2.5, fault))  # in the second step
    work.write(
        rewards=[entry(server)],
        training__reward_timeout=1.2,  # less than the outage
        logging={"alerts": {}},
    )
    running = work.start("run.json")
    work.until(lambda: "waiting for judge at " in status(work)["message"])
    assert status(work)["state"] == "running"
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert "The run waits until it is back, 60 min at most" in ended.err
    assert "answers again, and the run goes on" in ended.err
    assert work.status()["message"] == ""
    whole = work.metrics("whole")
    assert work.metrics() == whole
    assert [row["failed"] for row in whole] == [0, 0, 0, 0]
    assert any(row["updated"] for row in whole)
    for name in ("checkpoints/step-4", "final_model"):
        files = [work.path / run / name for run in ("outputs", "whole")]
        weights, others = ({file.name: file.read_bytes() for file in one.glob("*.safetensors")} for one in files)
        assert weights == others
    rows = [json.loads(line) for line in (work.path / "outputs" / "alerts.jsonl").read_text().splitlines()]
    assert [(row["alert"], row["state"], row["step"]) for row in rows] == [
        ("service down", "firing", 1),
        ("service down", "resolved", 1),
    ]
    assert [row["text"].count("judge at http://") for row in rows] == [1, 1]


def test_with_skip_the_conversations_of_an_outage_leave_their_groups_and_none_becomes_a_reward(work, endpoint_server):
    server = endpoint_server(lambda number, body: BROKEN if 4 <= number < 8 else score(body))
    work.write(rewards=[entry(server, when_down="skip")])
    assert work.train().code == 0
    assert [(row["step_episodes"], row["failed"]) for row in work.metrics()] == [(4, 0), (4, 4), (4, 0), (4, 0)]
    lines = (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()
    assert [row["reward"] for row in map(json.loads, lines) if row["step"] == 2] == [None] * 4


def test_a_judge_that_stays_away_stops_the_run_saved_and_it_goes_on_with_resume(work, endpoint_server):
    outage = Outage(6, 3600.0, BROKEN)
    server = endpoint_server(outage)
    work.write(rewards=[entry(server, patience=2)])
    ended = work.train()
    assert ended.code == 75, ended.err
    assert "it was waited for, 2 s (patience), and the run stops" in ended.err
    assert re.search(r"once that is mended, continue from step 1:\n  grpo-train run.json --resume", ended.err)
    assert work.status()["state"] == "interrupted"
    assert (work.path / "outputs" / "checkpoints" / "step-1").is_dir()
    outage.seconds = 0
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    resumed = work.metrics()
    assert work.train("--output-dir", "whole").code == 0
    assert resumed == work.metrics("whole")


@pytest.mark.parametrize("more", [{"when_down": "wait"}, {"when_down": "skip", "retries": 4, "total_seconds": 180}])
def test_a_signal_while_the_judge_is_waited_for_is_answered_in_time(work, endpoint_server, more):
    server = endpoint_server(lambda number, body: score(body) if number < 6 else Reply(429, {}, {"retry-after": "60"}))
    work.write(rewards=[entry(server, **more)])
    running = work.start("run.json")
    work.until(lambda: server.count >= 7)
    time.sleep(0.5)  # it is in the wait of 60 s
    running.send(signal.SIGTERM)
    begun = time.monotonic()
    ended = running.wait()
    assert ended.code == 75, ended.err
    assert time.monotonic() - begun < 8
    assert "stopped and saved at step 1" in ended.err
    assert work.status()["state"] == "interrupted"


def test_a_limit_that_is_over_before_the_judge_is_known_to_be_down_is_refused_with_both_keys(work, endpoint_server):
    """Two judges of a reward are asked one after the other. Mutations: the longer of the two; a skipped one counted."""
    server = endpoint_server(lambda number, body: score(body))
    judge = {key: value for key, value in entry(server, retries=1, total_seconds=20).items() if key != "first_wait"}
    skipped = {**judge, "when_down": "skip", "rubric": "Is it short?"}
    for rewards, limit in (
        ([judge], 20),
        ([judge, {**judge, "rubric": "Is it polite?", "total_seconds": 5}, skipped], 25),
        ([{**judge, "retries": 0, "seconds": 3}], 3),
    ):
        work.write(rewards=rewards, training__reward_timeout=limit)
        for flags in ((), ("--dry-run",)):
            ended = work.train(*flags)
            assert ended.code == 2, ended.err
            assert re.search(rf"run.json, line \d+: reward_timeout is {limit}, but the judge", ended.err), ended.err
            assert f"up to {limit} seconds (total_seconds)" in ended.err
            assert f"set reward_timeout above {limit}, or lower total_seconds" in ended.err
        assert not (work.path / "outputs").exists()
        work.write(rewards=rewards, training__reward_timeout=limit + 0.1)
        assert work.train("--dry-run").code == 0
    for more in ({"rewards": [skipped], "training__reward_timeout": 1}, {"rewards": [judge]}):
        work.write(**more)
        assert work.train("--dry-run").code == 0
    assert server.count == 0


def test_a_limit_that_is_over_before_the_user_is_known_to_be_down_is_refused(work):
    user = {"type": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model_name": "user", "when_down": "wait"}
    for section in (user, {"type": "mixture", "users": [{"type": "scripted", "share": 1}, {**user, "share": 1}]}):
        work.write(environment__user=section, training__environment_timeout=180)
        ended = work.train()
        assert ended.code == 2
        assert "environment_timeout is 180, but a user behind a server is tried for up to 180 seconds" in ended.err
        work.write(environment__user=section, training__environment_timeout=181)
        assert work.train("--dry-run").code == 0


def test_a_policy_that_does_not_exist_is_refused_with_its_line(work, endpoint_server):
    work.write(rewards=[{"type": "llm_judge", "base_url": "http://127.0.0.1:9/v1", "model": "m", "when_down": "wiat"}])
    ended = work.train()
    assert ended.code == 2
    assert re.search(r"run.json, line \d+: rewards\[0\].when_down is \"wiat\", which does not exist", ended.err)
    assert 'did you mean "wait"?' in ended.err


def test_a_user_that_was_down_costs_time_and_no_conversation(work, endpoint_server):
    def says(number, body):
        return "And then? " + "".join(reversed(body["messages"][-1]["content"]))[:9]

    def user(server):
        place = {"type": "endpoint", "base_url": server.base_url, "model_name": "user", "when_down": "wait"}
        return {"environment__user": {**place, "patience": 60}}

    work.write(**user(endpoint_server(says)))
    assert work.train("--output-dir", "whole").code == 0
    gone = Reply(503, {}, {"retry-after": "0"})
    server = endpoint_server(lambda number, body: gone if 5 <= number < 25 else says(number, body))
    work.write(**user(server))
    ended = work.train()
    assert ended.code == 0, ended.err
    assert "The run waits until it is back, 60 s at most" in ended.err
    assert [row["failed"] for row in work.metrics()] == [0, 0, 0, 0]
    assert work.metrics() == work.metrics("whole")
