"""Each sign of health, from rows worked out by hand, and the page that lists them."""

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from documents import script_of
from stateset_agents.tracking.health import SIGNALS, HealthStatus, assess
from stateset_agents.tracking.learning import judge

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
WARNING, CRITICAL = HealthStatus.WARNING, HealthStatus.CRITICAL


def run(count=12, **changes):
    """Healthy rows; a function instead of a number gives the value of each step, counted from 1."""
    healthy = {
        "step_episodes": 16,
        "reward_mean": lambda n: 0.5 + 0.02 * (n % 2),
        "reward_diversity": 0.2,
        "zero_variance_share": 0.0,
        "grad_norm": 1.0,
        "entropy": 1.0,
        "kl": 0.01,
        "clip_fraction": 0.05,
        "mismatch_size": 1e-6,
        "temperature": 0.7,
        "failed": 0,
        "unscored": 0,
        "truncated": 0,
        "replies": 20,
        "cut_replies": 0,
        "sampled_tokens": 1600,
        "repeated_ngrams": 0.02,
    } | changes
    return [
        {"step": n} | {key: value(n) if callable(value) else value for key, value in healthy.items()}
        for n in range(1, count + 1)
    ]


def wrong(rows, attainable=1.0):
    return [(one.name, one.status) for one in assess(rows, attainable).signals if one.wrong]


def evaluated(*means, half=0.05):
    """An evaluation after each step from the second on, as far as there are any; the training reward rises."""
    rows = run(reward_mean=lambda n: 0.3 + 0.04 * n + 0.005 * (n % 2))
    for row, mean in zip(rows[1:], means, strict=False):
        row |= {"eval_reward_mean": mean, "eval_reward_low": mean - half, "eval_reward_high": mean + half}
    return rows


def test_a_healthy_run_has_every_sign_and_no_issue():
    health = assess(run(), 1.0)
    assert (health.status, health.issues, health.suggestions) == (HealthStatus.HEALTHY, (), ())
    assert [one.name for one in health.signals] == [one.name for one in SIGNALS]
    assert all(one.status is HealthStatus.HEALTHY for one in health.signals if one.name != "Evaluation")
    assert all(one.sentence and not one.action for one in health.signals)


SICK = [
    ("Reward diversity", {"reward_diversity": 0.049}, WARNING, "Low reward diversity"),
    ("Groups with equal rewards", {"zero_variance_share": 0.51}, WARNING, "51% of the groups had equal rewards"),
    (
        "Trend of the reward",
        {"reward_mean": lambda n: 0.9 - 0.03 * n},
        WARNING,
        # the first four of 12 steps: 0.87 to 0.78; the last four: 0.63 to 0.54
        "The reward fell from 0.825 in the first 4 steps to 0.585 in the last 4",
    ),
    ("Gradient", {"grad_norm": lambda n: None if n == 3 else 1.0}, CRITICAL, "1 of 12 steps had a gradient that is"),
    ("Gradient", {"grad_norm": 0.0}, CRITICAL, "No step had a gradient, so nothing was learned"),
    ("Gradient stability", {"grad_norm": lambda n: 10.0 ** (n % 3)}, WARNING, "Unstable gradients"),
    # of 12 steps the first two and the last two count: 1.95 and 0.15
    ("Entropy", {"entropy": lambda n: 2.0 if n == 1 else 1.9 if n == 2 else 0.15}, WARNING, "The entropy collapsed"),
    (
        "KL to the reference",
        {"kl": lambda n: 0.2 * n},
        WARNING,
        "The policy went far from its reference (KL 2.30",
    ),
    ("Clipped tokens", {"clip_fraction": 0.31}, WARNING, "31% of the tokens were clipped"),
    ("Sampler against learner", {"mismatch_size": 0.11}, CRITICAL, "Sampler and learner disagree: a token's log-prob"),
    (
        "Failed episodes",
        {"failed": 1, "failed_user": 1},
        WARNING,
        "12 of 192 episodes failed or could not be scored",
    ),
    ("Failed episodes", {"failed": 9, "failed_reward": 9}, CRITICAL, "108 of 192 episodes failed"),
    ("Truncated episodes", {"truncated": 5}, WARNING, "31% of the episodes were cut by a limit"),
    ("Cut replies", {"cut_replies": 11}, WARNING, "55% of the replies were cut by max_new_tokens"),
    # 16 episodes a step: 85 to 115 tokens, then 165 to 195
    (
        "Length against reward",
        {"sampled_tokens": lambda n: 1200 + 160 * n},
        WARNING,
        "The conversations grew from",
    ),
    (
        "Repetition",
        {"repeated_ngrams": lambda n: n / 24},
        WARNING,
        "The replies repeat themselves (48%",
    ),
]


@pytest.mark.parametrize(("name", "changes", "status", "words"), SICK)
def test_each_sign_alone_says_what_is_wrong_and_what_helps(name, changes, status, words):
    rows = run(**changes)
    health = assess(rows, 1.0)
    assert wrong(rows) == [(name, status)]
    (issue,), (action,) = health.issues, health.suggestions
    assert issue.startswith(words)
    assert issue.endswith(f": {action}")
    assert action
    assert health.status is status


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([1], r"rows\[0\] is a int; each must be a dict"),
        ([{"step": 1}, None], r"rows\[1\] is a NoneType"),
        ("metrics.jsonl", "rows is a str; it must be a list"),
        ({"step": 1}, "rows is a dict"),
        (None, "rows is a NoneType"),
    ],
)
def test_what_are_no_rows_is_said(rows, words):
    with pytest.raises(TypeError, match=words):
        assess(rows)


def test_every_sign_is_tried_above_or_below():
    assert {name for name, *_ in SICK} | {"Evaluation"} == {one.name for one in SIGNALS}


@pytest.mark.parametrize(
    ("temperature", "size", "status"),
    [
        (0.003, 0.132, HealthStatus.HEALTHY),  # measured in bfloat16 with nothing wrong
        (0.001, 0.403, HealthStatus.HEALTHY),  # the same
        (0.001, 11.0, CRITICAL),
        (0.1, 0.11, CRITICAL),
        (None, 0.11, CRITICAL),
    ],
)
def test_rounding_explains_more_at_a_temperature_near_0(temperature, size, status):
    (sign,) = [one for one in assess(run(mismatch_size=size, temperature=temperature)).signals if "Sampler" in one.name]
    assert (sign.value, sign.status) == (pytest.approx(size), status)


@pytest.mark.parametrize("key", [key for one in SIGNALS for key in one.keys if len(one.keys) == 1])
def test_what_was_not_measured_is_unknown_and_not_healthy(key):
    rows = [{name: value for name, value in row.items() if name != key} for row in run()]
    unknown = [one for one in SIGNALS if one.keys == (key,)]
    readings = {one.name: one for one in assess(rows, 1.0).signals}
    assert unknown
    assert all((readings[one.name].value, readings[one.name].status) == (None, "UNKNOWN") for one in unknown)


def test_the_verdict_on_the_reward_is_the_dashboards():
    """A thousand series without any trend, and whatever chance makes of them: both say the same of each."""
    chance = random.Random(0)
    told = 0
    for _ in range(1000):
        rows = [{"step": n, "grad_norm": 1.0, "reward_mean": chance.gauss(0.5, 0.1)} for n in range(1, 31)]
        worse = judge([row["reward_mean"] for row in rows]).verdict == "getting worse"
        assert (("Trend of the reward", WARNING) in wrong(rows)) is worse
        told += worse
    assert 10 <= told <= 45  # once in forty, by the interval


def test_a_verdict_from_more_rows_than_these_is_taken_over():
    falls = judge([0.9 - 0.03 * n for n in range(30)])
    health = assess(run(), 1.0, learning=falls)
    assert [one.split(" in the first")[0] for one in health.issues] == ["The reward fell from 0.765"]


def test_a_reward_that_rises_while_the_evaluations_fall_is_found_out():
    rows = evaluated(0.5, 0.6, 0.4)
    assert wrong(rows) == [("Evaluation", CRITICAL)]
    (issue,) = assess(rows, 1.0).issues
    assert issue.startswith(
        "The reward that is trained for rose while the evaluated reward fell from 0.600 after step 3 to 0.400"
    )
    assert issue.endswith("the checkpoint of step 3 is the better agent")


def test_a_fall_that_chance_explains_is_none():
    assert wrong(evaluated(0.5, 0.6, 0.4, half=0.11)) == []
    assert wrong(evaluated(0.5, 0.6, 0.6)) == []
    assert wrong(evaluated(0.6)) == []


def test_wide_intervals_hide_no_fall_that_twelve_evaluations_show():
    """Over a few scenarios an interval is wide, but the same scenarios come again: what falls at each shows."""
    rows = [row | {"step": n + 1} for n, row in enumerate(run(13))]
    for n, row in enumerate(rows[1:]):
        row |= {"eval_reward_mean": 0.7 - 0.02 * n, "eval_reward_low": 0.1, "eval_reward_high": 0.95}
    assert wrong(rows) == [("Evaluation", WARNING)]


def test_conversations_that_grow_and_earn_more_are_fine():
    rows = run(sampled_tokens=lambda n: 1200 + 160 * n, reward_mean=lambda n: 0.3 + 0.04 * n)
    assert wrong(rows) == []
    assert wrong(run(sampled_tokens=lambda n: 1600 + 10 * n)) == []  # by 5 %
    # from 500 to 700 tokens a conversation, but each second one has 800 more than the one before
    assert wrong(run(sampled_tokens=lambda n: 16 * ((100 if n < 9 else 300) + 800 * (n % 2)))) == []


def test_an_entropy_that_falls_as_the_reward_nears_its_maximum_is_what_success_looks_like():
    sure = {"entropy": lambda n: 2.0 if n < 3 else 0.1}
    assert wrong(run(**sure, reward_mean=lambda n: 0.96 if n > 10 else 0.5)) == []
    assert wrong(run(**sure)) == [("Entropy", WARNING)]


@pytest.mark.parametrize(
    ("key", "helps"),
    [
        ("failed_environment", "mend the environment or its tools, or raise environment_timeout"),
        ("failed_user", "look at the model that plays the user"),
        ("failed_reward", "mend the reward or its judge"),
        ("failed_agent", "mend the agent's process_turn"),
    ],
)
def test_what_helps_against_failures_depends_on_who_failed_most(key, helps):
    counts = {"failed": 4, "failed_user": 1, "failed_reward": 1} | {key: 3}
    (issue,) = assess(run(**counts), 1.0).issues
    assert f"36 {key.removeprefix('failed_')}" in issue
    assert f"trajectories.jsonl says why; {helps}" in issue


def test_the_worst_comes_first_and_what_helps_twice_is_said_once():
    health = assess(run(clip_fraction=0.5, mismatch_size=0.5, truncated=8), 1.0)
    assert health.status is CRITICAL
    assert [issue.split()[0] for issue in health.issues] == ["Sampler", "50%", "50%"]
    assert len(set(health.suggestions)) == len(health.suggestions) == 3


def test_every_reading_is_json():
    told = json.loads(json.dumps(asdict(assess(run(grad_norm=None), 1.0)), allow_nan=False))
    assert told["signals"][4] == {
        "name": "Gradient",
        "value": None,
        "shown": "not finite in 12",
        "status": "CRITICAL",
        "sentence": "12 of 12 steps had a gradient that is not finite",
        "action": "lower the learning rate",
    }


def test_the_page_says_what_the_code_judges_by(tmp_path, monkeypatch, capsys):
    script = script_of("make_health_page")
    assert script.filled(PAGE) == PAGE
    page = tmp_path / "health.md"
    page.write_text(PAGE.replace("more than 30% at the end", "more than 40% at the end"))
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["script"])
    assert script.main() == 0
    assert capsys.readouterr().out == "out of date: health.md\nwritten: health.md\n"
    assert page.read_text() == PAGE
    with pytest.raises(ValueError, match="the page needs one place for the table"):
        script.filled("# Health")
