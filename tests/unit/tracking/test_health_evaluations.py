"""What is said of the evaluations of many runs that chance makes: looked at after each one, as an alert does."""

import numpy as np
import pytest

from stateset_agents.tracking.health.evidence import Evidence
from stateset_agents.tracking.health.of_rewards import evaluation

RUNS = 200


def runs(level, scenarios, samples):
    """The rows of many runs that are evaluated after each step.

    Args:
        level: share of successes at each evaluation.
        scenarios: of an evaluation; other ones each time, so that all that differs is chance.
        samples: of each.
    """
    chance = np.random.default_rng(5)
    for _ in range(RUNS):
        scores = chance.binomial(samples, np.asarray(level)[:, None], (len(level), scenarios)) / samples
        means, halves = scores.mean(1), 1.96 * scores.std(1) / scenarios**0.5
        yield rows_of(means, halves)


def rows_of(means, halves):
    return [
        {
            "step": step,
            "eval_reward_mean": float(mean),
            "eval_reward_low": float(mean - half),
            "eval_reward_high": float(mean + half),
        }
        for step, (mean, half) in enumerate(zip(means, halves, strict=True), 1)
    ]


def falls(rows):
    return evaluation(Evidence(rows)).wrong is not None


def told(level, scenarios, samples):
    """After how many evaluations each of many runs is first said to have fallen; None where it never is."""
    looks = range(2, len(level) + 1)
    return [next((count for count in looks if falls(rows[:count])), None) for rows in runs(level, scenarios, samples)]


def share_told(count, level, scenarios, samples):
    """Share of many runs of which somebody who looks after `count` evaluations is told that they fell."""
    return sum(falls(rows[:count]) for rows in runs(level, scenarios, samples)) / RUNS


@pytest.mark.parametrize(("level", "scenarios", "samples"), [(0.5, 50, 1), (0.5, 16, 4), (0.95, 50, 1)])
def test_a_run_that_stays_as_it_is_falls_in_one_of_a_hundred_runs_at_most(level, scenarios, samples):
    false = [step for step in told([level] * 20, scenarios, samples) if step is not None]
    assert len(false) <= RUNS / 100


def test_a_real_fall_is_told_soon():
    told_at = told([0.8] * 8 + [0.5] * 6, 50, 1)
    by = {step: sum(at is not None and at <= step for at in told_at) / RUNS for step in (8, 10, 14)}
    assert by[8] <= 0.01
    assert by[10] >= 0.9
    assert by[14] >= 0.99


def test_a_fall_after_the_first_evaluation_is_told_at_each_look_from_then_on():
    rows = rows_of([0.9] + [0.2] * 19, [0.2] * 20)
    assert all(falls(rows[:count]) for count in range(2, 21))


@pytest.mark.parametrize(
    ("level", "scenarios", "samples"),
    [
        pytest.param([0.8] + [0.3] * 19, 50, 1, id="falls after the first"),
        pytest.param([0.9] + [0.5] * 19, 16, 4, id="falls after the first, 16 scenarios"),
        pytest.param([0.3, 0.8] + [0.3] * 18, 50, 1, id="a single peak, then back"),
    ],
)
def test_one_good_evaluation_is_not_forgotten(level, scenarios, samples):
    assert all(share_told(count, level, scenarios, samples) >= 0.9 for count in (4, 15, 20))


def test_a_slow_fall_is_told_at_its_end():
    assert share_told(20, np.linspace(0.8, 0.5, 20), 50, 1) >= 0.9


def test_a_run_that_came_back_is_fine():
    assert share_told(20, [0.8] + [0.3] * 6 + [0.8] * 13, 50, 1) <= 0.05
