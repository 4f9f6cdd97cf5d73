"""The verdict, with numbers worked out by hand."""

import math
import random

import pytest

from stateset_agents.tracking.learning import FEWEST_STEPS, difference, judge, t_quantile


def test_the_interval_of_a_difference_is_welchs():
    # means 2 and 5, variances 1 and 1 over 3 values: error sqrt(2/3), 4 degrees of freedom, t = 2.776
    found = difference([1, 2, 3], [4, 5, 6])
    assert found.change == 3
    assert found.high - found.change == pytest.approx(2.776 * math.sqrt(2 / 3), rel=2e-3)
    assert found.change - found.low == pytest.approx(found.high - found.change)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.1824), (4, 2.7764), (10, 2.2281), (30, 2.0423), (1e9, 1.95996)]
)
def test_the_quantile_of_students_t_is_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, rel=2e-3)


def test_a_reward_that_rises_is_learned():
    found = judge([0.4, 0.42, 0.38, 0.4, 0.5, 0.52, 0.48, 0.5, 0.6, 0.62, 0.58, 0.6])
    assert found.verdict == "yes"
    # both thirds have the values m, m+0.02, m-0.02, m: variance 0.0008/3, error sqrt(2 * 0.0008/3 / 4) = 0.01155
    half = 2.4469 * 0.011547  # t of 6 degrees of freedom
    assert found.difference.low == pytest.approx(0.2 - half, abs=2e-4)
    assert found.sentence == (
        "Yes: the reward rose by 0.200 (95 % interval 0.172 to 0.228), "
        "from 0.400 in the first 4 steps to 0.600 in the last 4."
    )


def test_a_reward_that_falls_gets_worse():
    found = judge([0.6, 0.62, 0.58, 0.6, 0.5, 0.52, 0.48, 0.5, 0.4, 0.42, 0.38, 0.4])
    assert found.verdict == "getting worse"
    assert found.sentence.startswith(
        "Getting worse: the reward fell by 0.200 (95 % interval 0.172 to 0.228), from 0.600"
    )


def test_a_change_that_chance_explains_is_not_seen():
    found = judge([0.3, 0.7, 0.3, 0.7] * 2 + [0.4, 0.7, 0.4, 0.7])
    assert found.verdict == "not seen"
    assert found.sentence == (
        "Not seen: the reward went from 0.500 in the first 4 steps to 0.550 in the last 4, and chance alone moves it "
        "as far (95 % interval of the change -0.310 to +0.410)."
    )


def test_too_few_steps_say_nothing():
    assert judge([0.1 * n for n in range(FEWEST_STEPS - 1)]).sentence == (
        "Too early to tell: 11 of at least 12 steps have a reward."
    )
    assert judge([]).verdict == "not seen"
    assert judge([math.nan] * 50).sentence == "Too early to tell: 0 of at least 12 steps have a reward."


def test_steps_without_a_score_are_left_out():
    rises = [0.4, 0.42, 0.38, 0.4, 0.5, 0.52, 0.48, 0.5, 0.6, 0.62, 0.58, 0.6]
    assert judge([x for one in rises for x in (math.nan, one)]) == judge(rises)


def test_rewards_that_never_differ_are_not_seen_to_change():
    assert judge([0.5] * 30).verdict == "not seen"


def test_a_run_that_learns_from_a_file_is_judged_by_its_loss():
    falls = [2.0, 2.1, 1.9, 2.0, 1.5, 1.6, 1.4, 1.5, 1.0, 1.1, 0.9, 1.0]
    found = judge([math.nan] * 12, falls)
    assert found.verdict == "yes"
    assert found.sentence.startswith("Yes: the loss fell by 1.000 (95 % interval")
    assert found.sentence.endswith("from 2.000 in the first 4 steps to 1.000 in the last 4.")
    assert judge([], falls[::-1]).sentence.startswith("Getting worse: the loss rose by 1.000")


def test_what_was_learned_and_lost_again_is_said():
    wave = [0.2, 0.22, 0.18, 0.2, 0.8, 0.82, 0.78, 0.8, 0.5, 0.52, 0.48, 0.5]
    found = judge(wave)
    assert found.verdict == "yes"
    assert found.notes[0].startswith("It was better before: the reward fell by 0.300 (95 % interval")


def test_evaluations_are_compared_by_their_intervals():
    rises = [0.4, 0.42, 0.38, 0.4, 0.5, 0.52, 0.48, 0.5, 0.6, 0.62, 0.58, 0.6]
    apart = judge(rises, heldout=[(0.4, 0.3, 0.5), (0.45, 0.2, 0.9), (0.7, 0.6, 0.8)])
    assert apart.notes == (
        "It holds in the evaluations: the evaluated reward went from 0.400 to 0.700, and the intervals are apart.",
    )
    assert "no difference is seen" in judge(rises, heldout=[(0.4, 0.3, 0.5), (0.5, 0.4, 0.6)]).notes[0]
    assert "it got worse" in judge(rises, heldout=[(0.7, 0.6, 0.8), (0.4, 0.3, 0.5)]).notes[0]
    assert judge(rises, heldout=[(0.4, 0.3, 0.5)]).notes == ()


def test_noise_is_called_learning_or_worse_in_about_one_run_of_twenty():
    source = random.Random(7)
    verdicts = [judge([source.gauss(0.5, 0.1) for _ in range(24)]).verdict for _ in range(2000)]
    wrong = sum(verdict != "not seen" for verdict in verdicts) / len(verdicts)
    assert 0.03 < wrong < 0.07
