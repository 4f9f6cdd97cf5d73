"""Alerts of real runs: what a receiver gets, what a killed and resumed run tells, and what a config may not say."""

import json
import signal
import time

import pytest
import yaml

from endpoint_server import BROKEN, Reply
from integration.test_resume import STOP_AT
from integration.test_train_call import SMALL, environment, tiny, vowels
from stateset_agents import train
from stateset_agents.core.errors import ConfigError
from stateset_agents.training.train import AutoTrainer

RULES = [
    {"name": "always", "metric": "reward_mean", "above": -1},
    {"metric": "reward_mean", "below": -1},
    {"name": "late", "metric": "step", "above": 2, "steps": 1},
]


@pytest.fixture
def receiver(endpoint_server):
    return endpoint_server(lambda number, body: BROKEN if number == 0 else Reply(200, {}))


def address(server):
    return f"{server.base_url}/chat/completions"


def alerts(work, run="outputs"):
    lines = (work.path / run / "alerts.jsonl").read_text().splitlines()
    return [(row["alert"], row["state"], row["step"]) for row in map(json.loads, lines)]


def test_a_killed_and_resumed_run_tells_each_alert_once_and_ends_as_an_undisturbed_one(work, receiver):
    work.write(
        alerts=RULES, logging={"alerts": {"webhook_env": "ALERT_WEBHOOK"}, "log_file": "run.log", "level": "DEBUG"}
    )
    env = {"ALERT_WEBHOOK": address(receiver)}
    assert work.train("--output-dir", "whole", **env).code == 0
    assert alerts(work, "whole") == [("always", "firing", 1), ("late", "firing", 3)]
    assert [(body["run"], body["alert"], body["step"]) for body in receiver.bodies] == [
        ("whole", "always", 1),  # refused with 500, and posted again
        ("whole", "always", 1),
        ("whole", "late", 3),
    ]

    killed = work.train(before=STOP_AT.format(step=3, number=int(signal.SIGKILL)), **env)
    assert killed.code == -signal.SIGKILL
    ended = work.train("--resume", **env)
    assert ended.code == 0, ended.err
    assert "alert firing: late" in (work.path / "outputs" / "run.log").read_text()
    # The steps after step 2 were made twice, and step 3 fired twice.
    assert alerts(work) == alerts(work, "whole")
    assert [body["alert"] for body in receiver.bodies[3:]] in (["always", "late"], ["always"])  # killed while it posted
    assert work.metrics() == work.metrics("whole")
    for name in ("checkpoints/step-4", "final_model"):
        assert {file.name: file.read_bytes() for file in (work.path / "outputs" / name).glob("*.safetensors")} == {
            file.name: file.read_bytes() for file in (work.path / "whole" / name).glob("*.safetensors")
        }
    state = [
        json.loads((work.path / run / "checkpoints/step-4/trainer.json").read_text()) for run in ("outputs", "whole")
    ]
    assert state[0]["callbacks"] == state[1]["callbacks"]
    assert state[0]["callbacks"]["AlertWatch"]["late"]["since"] == 3

    written = [*work.snapshot("whole").values(), *work.snapshot().values(), ended.out.encode(), ended.err.encode()]
    assert not any(address(receiver).encode() in content for content in written)


def test_a_run_that_fails_or_is_stopped_is_told_and_resolved_when_it_goes_on(work, receiver):
    work.write(logging={"alerts": {"webhook_env": "ALERT_WEBHOOK", "cool_down": 0}})
    env = {"ALERT_WEBHOOK": address(receiver)}
    assert work.train(before=STOP_AT.format(step=1, number=int(signal.SIGTERM)), **env).code == 75
    rewards = (work.path / "my_rewards.py").read_text()
    (work.path / "my_rewards.py").write_text(rewards + "\n\nasync def vowels(turns, context=None):\n    exit(1)\n")
    failed = work.train("--resume", "--num-episodes", "60", **env)
    assert failed.code == 4, failed.err
    (work.path / "my_rewards.py").write_text(rewards)
    assert work.train("--resume", "--num-episodes", "60", **env).code == 0
    assert [row for row in alerts(work) if row[0] == "run"] == [
        ("run", "firing", 1),
        ("run", "resolved", 2),
        ("run", "firing", 11),
        ("run", "resolved", 12),
    ]
    assert ("nothing learned", "firing", 6) in alerts(work)
    assert receiver.bodies[-1]["text"].startswith("outputs: ")


def test_a_receiver_that_never_answers_costs_the_run_no_more_than_its_end(work, endpoint_server):
    server = endpoint_server(lambda number, body: Reply(delay=None))
    work.write(alerts=RULES, logging={"alerts": {"webhook_env": "ALERT_WEBHOOK"}})
    begun = time.monotonic()
    ended = work.train(before=STOP_AT.format(step=2, number=int(signal.SIGTERM)), ALERT_WEBHOOK=address(server))
    assert ended.code == 75
    assert time.monotonic() - begun < 9
    assert "does not answer and is left behind" in ended.err
    assert alerts(work)[-1] == ("run", "firing", 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alerts": [{"metric": "kl", "abov": 1}]}, 'alerts[0].abov is not a known key.\n  did you mean "above"?'),
        ({"alerts": [{"metric": "kl", "above": "high"}]}, 'alerts[0].above is "high"; want a number.'),
        ({"alerts": [{"metric": "kl"}]}, "alerts[0]: want one of above, below and missing_steps"),
        ({"alerts": [RULES[0], RULES[0]]}, 'alerts[1] is called "always", as another alert is.'),
        ({"alerts": [{**RULES[0], "name": "run"}]}, 'alerts[0] is called "run", as another alert is.'),
        ({"alerts": RULES[0]}, "want a list"),
        ({"alert": RULES}, 'alert is not a known key.\n  did you mean "alerts"?'),
        ({"logging": {"alerts": {"webhook": "https://hooks.example/T0/B0"}}}, 'did you mean "webhook_env"?'),
        ({"logging": {"alerts": {"webhook_env": "https://hooks.example/T0/B0"}}}, "such as ALERT_WEBHOOK"),
        (
            {"logging": {"alerts": {"webhook_env": "MY_WEBHOOK"}}},
            "the environment variable MY_WEBHOOK (logging.alerts.",
        ),
        ({"logging": {"alerts": {"file": "metrics.jsonl"}}}, "which the run itself writes: give another name."),
        ({"logging": {"alerts": {"file": "/dev/null/alerts.jsonl"}}}, "which cannot be written"),
        ({"logging": {"alerts": {"cool_down": -1}}}, "logging.alerts.cool_down is -1; it must be at least 0."),
    ],
)
def test_alerts_that_cannot_be_are_refused_with_their_line_before_anything_is_made(work, changes, words):
    work.write(**changes)
    ended = work.train()
    assert ended.code == 2
    assert "config error in run.json, line " in ended.err
    assert words in ended.err
    assert "hooks.example" not in ended.err
    assert not (work.path / "outputs").exists()
    assert work.train("--dry-run").code == 2


async def test_a_call_is_told_of_what_it_asks_for_as_a_config_file_is(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("ALERT_WEBHOOK", address(receiver))
    folder = tmp_path / "run"
    told = {"rules": RULES, "webhook_env": "ALERT_WEBHOOK"}
    more = {"reward_fn": vowels, "config_overrides": SMALL, "output_dir": folder, "alerts": told, "quiet": True}
    await train(tiny(), environment(), 16, **more)
    assert [(row["alert"], row["step"]) for row in rows(folder)] == [("always", 1), ("late", 3)]
    assert [body["alert"] for body in receiver.bodies] == ["always", "always", "late"]  # the first one was refused
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings["alerts"] == RULES
    assert settings["logging"]["alerts"]["webhook_env"] == "ALERT_WEBHOOK"
    await train(tiny(), environment(), 20, resume=True, **more)
    assert [(row["alert"], row["step"]) for row in rows(folder)] == [("always", 1), ("late", 3)]


async def test_rules_alone_are_a_list_and_the_trainer_that_chooses_takes_them_too(tmp_path):
    settings = {**SMALL, "learning_rate": 1e-6}
    more = {"reward_fn": vowels, "config_overrides": settings, "output_dir": tmp_path / "run", "quiet": True}
    await AutoTrainer(early_stopping=False).train(tiny(), environment(), 8, alerts=RULES[:1], **more)
    assert ("always", 1) in [(row["alert"], row["step"]) for row in rows(tmp_path / "run")]


@pytest.mark.parametrize("call", [train, AutoTrainer().train])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"metric": "kl", "abov": 1}], 'alerts[0].abov is not a known key.\n  did you mean "above"?'),
        ([{"metric": "kl", "above": "high"}], 'alerts[0].above is "high"; want a number.'),
        ([{"metric": "kl"}], "alerts[0]: want one of above, below and missing_steps"),
        ([{**RULES[0], "name": "a\nb"}], "alerts[0].name is "),
        ([{"metric": "kl\x1b[2J", "above": 1}], "want one line without control characters"),
        ([RULES[0], RULES[0]], 'alerts[1] is called "always", as another alert is'),
        ({"rules": [{**RULES[0], "name": "run"}]}, 'alerts.rules[0] is called "run", as another alert is'),
        (RULES[0], "alerts.name is not a known key.\n  it belongs in a rule, and rules in a list"),
        ({"webhook": "https://hooks.example/T0/B0"}, 'did you mean "webhook_env"?'),
        ({"webhook_env": "https://hooks.example/T0/B0"}, "such as ALERT_WEBHOOK"),
        ({"webhook_env": "MY_WEBHOOK"}, "the environment variable MY_WEBHOOK (alerts.webhook_env) is not set"),
        ({"file": "metrics.jsonl"}, 'alerts.file is "metrics.jsonl", which the run itself writes'),
        ("https://hooks.example/T0/B0", "alerts is a str; it must be a list of rules"),
        (True, "alerts is a bool; it must be a list of rules"),
    ],
)
async def test_what_a_call_may_not_say_is_refused_with_its_place_and_nothing_is_made(call, given, words, tmp_path):
    with pytest.raises(ConfigError) as refused:
        await call(tiny(), environment(), 8, reward_fn=vowels, output_dir=tmp_path / "run", alerts=given, quiet=True)
    assert words in str(refused.value)
    assert "hooks.example" not in str(refused.value)
    assert not (tmp_path / "run").exists()


async def test_alerts_without_a_run_folder_are_refused():
    with pytest.raises(ConfigError, match="give output_dir"):
        await train(tiny(), environment(), 8, reward_fn=vowels, alerts=RULES, quiet=True)


def rows(folder):
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]
