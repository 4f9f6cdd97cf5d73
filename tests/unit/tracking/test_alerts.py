"""Alerts: when rules fire, what is told of it and what is not, and a webhook that misbehaves."""

import json
import logging
import time

import pytest
from pydantic import ValidationError

from endpoint_server import BROKEN, HANG, Reply
from stateset_agents.config.alerts import AlertRule, AlertsSection
from stateset_agents.core.errors import ConfigError
from stateset_agents.engines.retrying import Tries
from stateset_agents.tracking.alerts import Alerts
from stateset_agents.tracking.alerts import alerts as module
from stateset_agents.tracking.alerts.rules import built_in_rules, rule_of
from stateset_agents.tracking.alerts.told import Alert, Told
from stateset_agents.tracking.alerts.webhook import MOST_WAITING, Webhook

OK = Reply(200, {"ok": True})
QUICK = Tries(seconds=0.3, retries=3, total_seconds=5.0, first_wait=0.01)
ALERT = Alert("2026-01-01T00:00:00Z", "shop", "low", "firing", "warning", 3, "reward_mean is 0.1, limit 0.2")


def rule(**keys):
    return rule_of(AlertRule(**keys))


def fires(tested, metric, values):
    """Whether it fires after each of some steps; None is a step without the metric."""
    rows = ({"step": step, **({} if value is None else {metric: value})} for step, value in enumerate(values, 1))
    return [tested.look(row) for row in rows]


def test_a_limit_must_be_crossed_for_so_many_measured_steps_in_a_row():
    low = rule(metric="reward_mean", below=0.2, steps=2)
    values = [0.1, 0.3, 0.1, None, 0.1, None, 0.2]  # 0.2 is not below 0.2; a step without the metric says nothing
    assert fires(low, "reward_mean", values) == [False, False, False, False, True, True, False]


def test_with_clear_an_alert_lasts_until_the_metric_is_back_there():
    high = rule(metric="kl", above=0.5, clear=0.3)
    assert fires(high, "kl", [0.4, 0.6, 0.4, 0.31, 0.3, 0.4]) == [False, True, True, True, False, False]


def test_a_metric_that_is_not_measured_is_missing_after_so_many_steps():
    gone = rule(metric="grad_norm", missing_steps=2)
    assert fires(gone, "grad_norm", [1.0, None, None, float("nan"), 1.0]) == [False, False, True, True, False]


def test_the_state_of_a_rule_survives_a_restart_in_the_middle_of_its_count():
    first, second = (rule(metric="kl", above=0.5, steps=3) for _ in range(2))
    fires(first, "kl", [0.6, 0.6])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.look({"step": 3, "kl": 0.6})
    assert second.since == 3


def test_a_run_tells_of_itself_that_it_learns_nothing_and_that_its_health_is_critical():
    health, unlearned = built_in_rules(None)
    healthy = {"updated": True, "grad_norm": 1.0, "reward_diversity": 0.2, "step_episodes": 8}
    sick = {**healthy, "updated": False, "grad_norm": 0.0, "failed": 8}
    told = [(health.look(row), unlearned.look(row)) for row in ({"step": n, **healthy} for n in (1, 2))]
    assert told == [(False, False)] * 2
    # 8 of 24 failed, 16 of 32: half is not yet more than half. From the 5th step on 24 of 40 are, three in a row at 7.
    told = [(health.look(row), unlearned.look(row)) for row in ({"step": n, **sick} for n in range(3, 8))]
    assert told == [(False, False)] * 4 + [(True, True)]
    assert health.text == "40 of 56 episodes failed or could not be scored: trajectories.jsonl says why"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "want a metric"),
        ({"metric": "kl"}, "want one of above, below and missing_steps"),
        ({"metric": "kl", "above": 1, "below": 0}, "want one of above, below and missing_steps"),
        ({"metric": "kl", "above": 1, "clear": 2}, "clear is 2; with above it must be at most that, 1"),
        ({"metric": "kl", "below": 1, "clear": 0.5}, "clear is 0.5; with below it must be at least that, 1"),
        ({"metric": "kl", "missing_steps": 3, "steps": 2}, "steps and clear belong to above and below"),
        (
            {"silent_minutes": 3, "metric": "kl"},
            "silent_minutes is about the run as a whole, and metric about a metric",
        ),
    ],
)
def test_a_rule_that_asks_nothing_or_two_things_is_refused(keys, words):
    with pytest.raises(ValidationError, match=words):
        AlertRule(**keys)


@pytest.mark.parametrize("name", ["https://hooks.example/T/B", "ALERT_URL", "webhook"])
def test_an_address_in_the_place_of_its_variable_is_refused_and_so_is_a_variable_that_logs_would_show(name):
    with pytest.raises(ValidationError, match="such as ALERT_WEBHOOK"):
        AlertsSection(webhook_env=name)
    assert AlertsSection(webhook_env="ALERT_WEBHOOK").webhook_env == "ALERT_WEBHOOK"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def told(path, clock, *, run="shop", resumes=False, shared=False, cool_down=60.0):
    sent = []
    record = Told(path, run, resumes=resumes, shared=shared, cool_down=cool_down, send=sent.append, clock=clock)
    return record, sent


def test_an_alert_is_told_when_it_begins_and_when_it_is_over_and_is_silent_for_a_while_after_that(tmp_path):
    clock = Clock()
    record, sent = told(tmp_path / "alerts.jsonl", clock)
    # From step 4 on it fires again, within the 60 s: that is held back until they are over.
    for step, firing in enumerate([True, True, False, True, False, True, True], 1):
        clock.now += 10
        record.rule("low", "warning", step, f"at {step}", fires=firing)
    record.close()
    assert [(alert.state, alert.step) for alert in sent] == [("firing", 1), ("resolved", 3), ("firing", 7)]
    written = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert [(row["run"], row["alert"], row["state"], row["step"], row["text"]) for row in written] == [
        ("shop", "low", "firing", 1, "at 1"),
        ("shop", "low", "resolved", 3, "at 3"),
        ("shop", "low", "firing", 7, "at 7"),
    ]


def test_steps_that_are_made_again_after_a_kill_tell_nothing_twice(tmp_path):
    path, clock = tmp_path / "alerts.jsonl", Clock()
    first, _ = told(path, clock, cool_down=0)
    first.rule("low", "warning", 5, "", fires=True)
    first.rule("low", "warning", 6, "", fires=False)
    first.close()
    with path.open("a") as file:
        file.write('{"alert": "lo')  # killed in the middle of a line
    again, sent = told(path, clock, resumes=True, cool_down=0)
    for step, firing in ((5, True), (6, False), (7, True)):
        again.rule("low", "warning", step, "", fires=firing)
    again.close()
    assert [(alert.state, alert.step) for alert in sent] == [("firing", 7)]


@pytest.mark.parametrize(("shared", "steps"), [(True, [3]), (False, [])], ids=["with other runs", "in the run folder"])
def test_a_resumed_run_is_not_silent_because_of_what_another_run_told_in_the_same_file(tmp_path, shared, steps):
    """In the run folder every line is the run's, whatever the folder was called then. Mutation: every line counts."""
    path, clock = tmp_path / "alerts.jsonl", Clock()
    other, _ = told(path, clock, run="bakery")
    other.rule("low", "warning", 500, "", fires=True)
    other.close()
    record, sent = told(path, clock, resumes=True, shared=shared)
    record.rule("low", "warning", 3, "", fires=True)
    record.close()
    assert [alert.step for alert in sent] == steps


def test_what_is_told_of_when_a_run_goes_on_stays_open_and_is_resolved(tmp_path):
    path, clock = tmp_path / "alerts.jsonl", Clock()
    first, _ = told(path, clock)
    first.event("run", "critical", 3, "failed", fires=True)
    first.close()
    again, sent = told(path, clock, resumes=True)
    again.event("run", "critical", 4, "goes on", fires=False)
    again.close()
    other, unsent = told(path, clock)  # a new run, which only adds to the file
    other.event("run", "critical", 1, "goes on", fires=False)
    other.close()
    assert [alert.state for alert in sent] == ["resolved"]
    assert unsent == []


def test_no_alert_holds_a_secret_that_an_error_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2hunter2")
    record, sent = told(tmp_path / "alerts.jsonl", Clock())
    record.event("run", "critical", 1, "failed: login with hunter2hunter2", fires=True)
    record.close()
    assert sent[0].text == "failed: login with ***"
    assert "hunter2" not in (tmp_path / "alerts.jsonl").read_text()


@pytest.fixture
def posted(endpoint_server, monkeypatch):
    """A webhook whose receiver behaves as told."""

    def start(behaviour, tries=QUICK):
        server = endpoint_server(behaviour)
        monkeypatch.setenv("ALERT_WEBHOOK", f"{server.base_url}/chat/completions")
        return server, Webhook("ALERT_WEBHOOK", tries)

    return start


@pytest.mark.parametrize("fault", [BROKEN, HANG, Reply(429, {}, {"retry-after": "0.05"})], ids=["500", "hang", "429"])
def test_a_webhook_that_fails_in_passing_gets_the_alert_once_it_works(posted, fault):
    server, webhook = posted(lambda number, body: fault if number < 2 else OK)
    webhook.send(ALERT)
    webhook.close(5)
    assert server.count == 3
    assert server.bodies[-1] == {
        "timestamp": "2026-01-01T00:00:00Z",
        "run": "shop",
        "alert": "low",
        "state": "firing",
        "level": "warning",
        "step": 3,
        "text": "shop: low firing, step 3: reward_mean is 0.1, limit 0.2",
    }


@pytest.mark.parametrize(("fault", "count"), [(BROKEN, 4), (Reply(404, {}), 1), (Reply(302, {}, {"location": "/"}), 1)])
def test_an_alert_that_cannot_be_posted_is_told_without_the_address_and_the_next_is_tried(posted, fault, count, caplog):
    server, webhook = posted(lambda number, body: OK if body["step"] == 4 else fault)
    webhook.send(ALERT)
    webhook.send(Alert(**{**vars(ALERT), "step": 4}))
    webhook.close(5)
    assert server.count == count + 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("the alert low did not reach the webhook of ALERT_WEBHOOK: the server answered ")
    assert server.base_url.removeprefix("http://") not in warnings[0]


def test_an_error_that_nobody_expected_costs_its_alert_and_tells_no_address(monkeypatch, caplog):
    async def broken(webhook, alert):
        raise OverflowError("https://hooks.example/T/B")

    monkeypatch.setattr(Webhook, "_post", broken)
    webhook = Webhook("ALERT_WEBHOOK", QUICK)
    for _ in range(2):
        webhook.send(ALERT)
    webhook.close(5)
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["the alert low did not reach the webhook of ALERT_WEBHOOK: OverflowError"] * 2


def test_nobody_waits_for_a_webhook_that_hangs(posted, caplog):
    _, webhook = posted(lambda number, body: HANG, Tries(60.0, 3, 120.0, 1.0))
    begun = time.monotonic()
    for _ in range(MOST_WAITING + 5):
        webhook.send(ALERT)
    assert time.monotonic() - begun < 1
    webhook.close(0.2)
    assert time.monotonic() - begun < 2
    text = caplog.text
    assert "alerts wait for the webhook: low is dropped" in text
    assert "does not answer and is left behind; alerts.jsonl has every alert" in text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "hooks.example/T/B",
        "ftp://hooks.example/T",
        "http://[::1",
        "http://hooks.example:99999/T",
        "http://hooks.example:0/T",
        "http://10.2.3/T",
    ],
)
def test_a_webhook_without_a_whole_address_is_refused_before_the_run_and_not_repeated(monkeypatch, value):
    monkeypatch.setenv("ALERT_WEBHOOK", value)
    with pytest.raises(ConfigError, match="ALERT_WEBHOOK") as refused:
        Webhook("ALERT_WEBHOOK").check()
    assert not value or value not in str(refused.value)


def test_a_silent_run_is_told_of_by_a_thread_and_resolved_by_its_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    alerts = Alerts([AlertRule(silent_minutes=0.2 / 60)], AlertsSection(), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    time.sleep(0.6)  # nobody but the thread can speak now
    states = [row["state"] for row in written(tmp_path)]
    alerts.after({"step": 1})
    alerts.end()
    assert states == ["firing"]
    assert [(row["alert"], row["state"], row["level"]) for row in written(tmp_path)] == [
        ("no step for 0.00333333 minutes", "firing", "critical"),
        ("no step for 0.00333333 minutes", "resolved", "critical"),
    ]


def written(folder):
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]


def part_of_a_run(folder, steps, *, down=(), problem="", resumes=True):
    """Steps, services that are down (True) and up again (False), an end; and what was told of it."""
    before = len(written(folder)) if (folder / "alerts.jsonl").exists() else 0
    alerts = Alerts([], AlertsSection(), folder)
    alerts.open(resumes=resumes)
    alerts.start([])
    for step in steps:
        alerts.after({"step": step})
    for name, is_down in down:
        alerts.service(name, f"{name} {'is down' if is_down else 'answers again'}", down=is_down)
    alerts.end(problem, failed=bool(problem))
    return [(row["alert"], row["state"], row["text"]) for row in written(folder)[before:]]


def test_a_service_is_down_until_all_that_were_down_answer(tmp_path):
    down = [("judge", True), ("user", True), ("judge", False), ("user", False)]
    assert part_of_a_run(tmp_path, [1], down=down, resumes=False) == [
        ("service down", "firing", "judge is down"),
        ("service down", "resolved", "user answers again"),
    ]


def test_a_service_that_was_down_when_a_run_ended_is_told_of_again_when_it_is_down_in_the_next_part(tmp_path):
    """Mutation: the alert of the first part stays open, as no service comes back that is not down."""
    assert [row[:2] for row in part_of_a_run(tmp_path, [1], down=[("judge", True)], problem="no judge")] == [
        ("service down", "firing"),
        ("run", "firing"),
    ]
    assert part_of_a_run(tmp_path, [2]) == [
        ("run", "resolved", "the run goes on"),
        ("service down", "resolved", "no service is down"),
    ]


def test_a_run_that_fails_again_is_told_of_again_however_soon_and_is_over_when_it_is_finished(tmp_path):
    """Mutation: the cool-down holds a second failure back, and the last that was told is that the run goes on."""
    told_of = [
        part_of_a_run(tmp_path, [1], problem="no space"),
        part_of_a_run(tmp_path, [], problem="no space"),  # no step was made: the same failure still
        part_of_a_run(tmp_path, [2], problem="no memory"),
        part_of_a_run(tmp_path, []),
    ]
    assert told_of == [
        [("run", "firing", "failed: no space")],
        [],
        [("run", "resolved", "the run goes on"), ("run", "firing", "failed: no memory")],
        [("run", "resolved", "the run is finished")],
    ]


def test_a_disk_that_refuses_alerts_ends_the_alerts_and_not_the_run(tmp_path, caplog):
    (tmp_path / "taken").write_text("")
    alerts = Alerts([AlertRule(metric="kl", above=0)], AlertsSection(file="taken/alerts.jsonl"), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    alerts.after({"step": 1, "kl": 1.0})
    alerts.end("TrainingStopped: nothing to learn", failed=True)
    assert "and none is told" in caplog.text


def test_a_metric_that_there_is_not_is_told_with_the_nearest_one(tmp_path, caplog):
    rules = [AlertRule(metric="reward_maen", below=0), AlertRule(metric="eval_reward_mean", below=0)]
    alerts = Alerts(rules, AlertsSection(), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    for step in (1, 2):
        alerts.after({"step": step, "reward_mean": 1.0})
    alerts.end()
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ['alerts[0].metric is "reward_maen", which this step does not have; did you mean "reward_mean"?']


def test_an_alert_says_what_is_so_after_its_own_step(tmp_path):
    alerts = Alerts([AlertRule(metric="kl", above=0.5)], AlertsSection(cool_down=0), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    for step, kl in enumerate([0.61, 0.72, 0.25], 1):
        alerts.after({"step": step, "kl": kl})
    alerts.end()
    assert [(row["state"], row["step"], row["text"]) for row in written(tmp_path)] == [
        ("firing", 1, "kl is 0.61, limit 0.5"),
        ("resolved", 3, "kl is 0.25, limit 0.5"),
    ]


@pytest.mark.parametrize(
    ("problem", "failed", "text"),
    [
        (
            "TrainingStopped: none could be scored.\n  8 of 8: KeyError",
            True,
            "failed: TrainingStopped: none could be scored. 8 of 8: KeyError",
        ),
        (
            "stopped and saved at step 7. To continue:\n  grpo-train --resume",
            False,
            "stopped and saved at step 7. To continue: grpo-train --resume",
        ),
        ("x" * 80 + " y" * 1000, True, "failed: " + "x" * 80 + " y" * 204 + " ..."),
    ],
)
def test_the_end_of_a_run_is_told_in_one_line_with_the_reason_and_the_way_on(tmp_path, problem, failed, text):
    alerts = Alerts([], AlertsSection(), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    alerts.end(problem, failed=failed)
    assert [row["text"] for row in written(tmp_path)] == [text]


def test_what_a_run_tells_of_itself_can_be_left_out(tmp_path):
    alerts = Alerts([], AlertsSection(built_in=False), tmp_path)
    alerts.open(resumes=False)
    alerts.start([])
    alerts.service("judge", "judge is down", down=True)
    alerts.end("TrainingStopped: it failed", failed=True)
    assert written(tmp_path) == []
