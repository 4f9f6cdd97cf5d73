"""What is said of the evaluations of many runs that chance makes: looked at after each one, as an alert does."""

import numpy as np
import pytest

from stateset_agents.tracking.health import HealthStatus, assess

RUNS = 300


def told(level, scenarios, samples):
    """After how many evaluations each of many runs is first said to have fallen; None where it never is.

    Args:
        level: share of successes at each evaluation.
        scenarios: of an evaluation; other ones each time, so that all that differs is chance.
        samples: of each.
    """
    chance = np.random.default_rng(5)
    found = []
    for _ in range(RUNS):
        rows, first = [], None
        for step, share in enumerate(level, 1):
            scores = chance.binomial(samples, share, scenarios) / samples
            mean, half = scores.mean(), 1.96 * scores.std() / scenarios**0.5
            rows.append(
                {
                    "step": step,
                    "eval_reward_mean": mean,
                    "eval_reward_low": mean - half,
                    "eval_reward_high": mean + half,
                }
            )
            (sign,) = [one for one in assess(rows, 1.0).signals if one.name == "Evaluation"]
            if sign.status is HealthStatus.WARNING:
                first = step
                break
        found.append(first)
    return found


@pytest.mark.parametrize(("scenarios", "samples"), [(50, 1), (16, 4)])
def test_a_run_that_stays_as_it_is_falls_in_one_of_a_hundred_runs_at_most(scenarios, samples):
    false = [step for step in told([0.5] * 20, scenarios, samples) if step is not None]
    assert len(false) <= RUNS / 100


def test_a_real_fall_is_told_soon():
    told_at = told([0.8] * 8 + [0.5] * 6, 50, 1)
    by = {step: sum(at is not None and at <= step for at in told_at) / RUNS for step in (8, 10, 14)}
    assert by[8] <= 0.01
    assert by[10] >= 0.8
    assert by[14] >= 0.99
