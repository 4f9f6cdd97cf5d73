"""Row 29. Metrics that are called alike and are not: inflated results, and numbers that cannot be compared.

Every definition that could be taken for the right one gives another number here.
"""

import pytest

from stateset_agents.core.outcome import Outcome
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.evaluation import EvaluationResult, SuccessCriterion, group_metrics
from stateset_agents.evaluation.statistics import pass_at_k, pass_hat_k

REWARDS = {"a": [0.5, 0.5, 2.0, 2.0], "b": [2.0, 1.0, None, None]}
"""Of 2 attainable; two episodes of b failed. Success is a reward of at least 1."""


def group(name):
    episodes = [
        MultiTurnTrajectory(name, reward=reward, outcome=Outcome.USER if reward is None else Outcome.OK)
        for reward in REWARDS[name]
    ]
    return TrajectoryGroup.of(name, episodes)


@pytest.fixture
def result():
    scenarios = tuple(Scenario(name, ("A",)) for name in REWARDS)
    return EvaluationResult(scenarios, (group("a"), group("b")), SuccessCriterion(2.0), 4, "k", 1.0)


def test_an_evaluation_averages_over_scenarios_and_failures_are_in_no_mean(result):
    """Over episodes 8/6, with failures as 0 it would be 1.

    Mutation: a mean over all values in evaluation/statistics.py: fails with 1.333 for 1.375.
    """
    assert result.reward.mean == pytest.approx((1.25 + 1.5) / 2)
    assert (result.reward.scenarios, result.reward.episodes) == (2, 6)
    assert result.failures == {"user": 2}


def test_success_is_half_of_what_is_attainable_and_not_any_reward_at_all(result):
    """2 of 4 and 2 of 2. Over episodes 4/6; every reward is above 0; failures counted as misses: 4/8.

    Mutation: reward > 0 in evaluation/metrics.py: fails with 1.0 for 0.75.
    """
    assert result.success.mean == pytest.approx((0.5 + 1.0) / 2)


def test_the_environment_s_own_verdict_comes_before_the_reward():
    """Mutation: the verdict not looked at in evaluation/metrics.py: fails."""
    said = MultiTurnTrajectory("a", reward=2.0, success=False)
    assert SuccessCriterion(2.0).succeeded(said) is False
    assert SuccessCriterion(None).succeeded(MultiTurnTrajectory("a", reward=2.0)) is None


def test_pass_at_k_and_pass_hat_k_by_hand():
    # 2 of 4 succeed. Of the 6 pairs, 1 has no success and 1 has two.
    """Mutation: draws with replacement in evaluation/statistics.py: fails with 3/4 for 5/6 and with 1/4 for 1/6."""
    assert pass_at_k(2, 4, 2) == pytest.approx(5 / 6)
    assert pass_hat_k(2, 4, 2) == pytest.approx(1 / 6)
    assert (pass_at_k(0, 4, 3), pass_hat_k(4, 4, 3), pass_hat_k(1, 4, 2)) == (0.0, 1.0, 0.0)


def test_any_of_k_and_all_of_k_are_two_numbers_over_the_scenarios_with_k_verdicts(result):
    """With replacement a would have 3/4 and 1/4; b has two verdicts and no third one.

    Mutation: pass^k for pass@k in evaluation/result.py: fails with 7/12 for 11/12.
    """
    assert result.pass_rates(1) == (pytest.approx(0.75), pytest.approx(0.75))
    assert result.pass_rates(2) == (pytest.approx((5 / 6 + 1) / 2), pytest.approx((1 / 6 + 1) / 2))
    assert result.pass_rates(3) == (1.0, 0.0)
    assert result.pass_rates(5) is None


def test_a_report_says_over_how_many_trials_and_by_which_criterion(result):
    """Mutation: reward > 0 in evaluation/metrics.py: fails at pass^2."""
    data = result.to_dict()
    assert (data["scenarios"], data["samples"], data["failures"]) == (2, 4, {"user": 2})
    assert data["success_criterion"] == "a reward of at least 1, half of the attainable 2"
    assert data["pass_hat_k"]["2"] == pytest.approx(7 / 12)


def test_a_step_averages_over_episodes_and_its_diversity_over_groups(result):
    """Deviations 0.75 and 0.5; over all six episodes it would be 0.69.

    Mutation: one deviation over all rewards in evaluation/metrics.py: fails with 0.687 for 0.625.
    """
    row = group_metrics(result.groups, result.criterion)
    assert row["reward_mean"] == pytest.approx(8 / 6)
    assert row["success_rate"] == pytest.approx(4 / 6)
    assert row["reward_diversity"] == pytest.approx((0.75 + 0.5) / 2)
    assert (row["step_episodes"], row["failed"]) == (8, 2)
