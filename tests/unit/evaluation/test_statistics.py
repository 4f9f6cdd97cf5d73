"""Statistics, against numbers worked out by hand and against simulations with a known answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateset_agents.evaluation.statistics import (
    mean_and_std,
    mean_interval,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    share_interval,
    wilson,
)


def test_every_scenario_weighs_the_same_however_many_samples_it_has():
    estimate = mean_interval({"a": [1.0], "b": [0.0, 0.0, 0.0]})
    assert estimate.mean == 0.5
    assert (estimate.scenarios, estimate.episodes) == (2, 4)


def test_the_interval_of_two_scenarios_is_worked_out_by_hand():
    # Two means 0 and 1: a bootstrap mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4, so 2.5 % and 97.5 % are 0 and 1.
    estimate = mean_interval({"a": [0.0, 0.0], "b": [1.0]})
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_the_interval_has_the_width_of_theory_for_many_scenarios():
    # 200 scenarios, half at 0 and half at 1: standard error sqrt(0.25 / 200) = 0.03536, times 1.96 = 0.0693.
    estimate = mean_interval({str(i): [float(i % 2)] for i in range(200)})
    assert estimate.low == pytest.approx(0.5 - 0.0693, abs=0.006)
    assert estimate.high == pytest.approx(0.5 + 0.0693, abs=0.006)


def test_more_samples_of_the_same_scenarios_do_not_narrow_the_interval():
    few = mean_interval({"a": [0.0], "b": [1.0], "c": [0.5], "d": [0.25]})
    many = mean_interval({"a": [0.0] * 50, "b": [1.0] * 50, "c": [0.5] * 50, "d": [0.25] * 50})
    assert (many.low, many.high) == (few.low, few.high)


def test_the_same_data_gives_the_same_interval_and_another_seed_nearly_the_same():
    data = {str(i): [i / 10] for i in range(10)}
    assert mean_interval(data) == mean_interval(data)
    assert mean_interval(data, seed=1).low == pytest.approx(mean_interval(data).low, abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        centres = rng.normal(0.5, 0.2, size=24)
        data = {str(i): rng.normal(c, 0.3, size=4).tolist() for i, c in enumerate(centres)}
        estimate = mean_interval(data, seed=seed, resamples=500)
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.89 <= covered / 200 <= 0.98


def test_one_scenario_is_resampled_by_episode_and_one_episode_has_no_interval():
    estimate = mean_interval({"a": [0.0, 1.0]})
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    alone = mean_interval({"a": [0.5], "b": []})
    assert (alone.mean, alone.low, alone.high, alone.scenarios) == (0.5, None, None, 1)
    assert alone.text() == "0.500 (one episode, no interval)"


def test_nothing_scored_has_no_mean():
    with pytest.raises(ValueError, match="no scored episode"):
        mean_interval({"a": []})


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # z = 1.96: 8 of 10 from the textbook formula; 0 of n is [0, z^2 / (n + z^2)].
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 3.84146 / 13.84146), (10, 10, 10 / 13.84146, 1.0), (0, 1, 0.0, 0.7935)],
)
def test_wilson_by_hand(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_a_share_without_a_single_failure_keeps_a_width_that_depends_on_the_scenarios():
    estimate = share_interval({str(i): [True] * 4 for i in range(24)})
    assert estimate.mean == 1.0
    assert (estimate.low, estimate.high) == pytest.approx((24 / 27.84146, 1.0), abs=1e-4)
    assert share_interval({"a": [False], "b": [False]}).low == 0.0


def test_with_one_scenario_both_intervals_are_over_its_episodes_and_say_so():
    reward, success = mean_interval({"a": [0.0, 1.0] * 5}), share_interval({"a": [True] * 10})
    assert reward.text().endswith(" over 10 episodes of one scenario)")
    # Wilson for 10 of 10
    assert (success.low, success.high) == pytest.approx((10 / 13.84146, 1.0), abs=1e-4)
    assert success.text(".1%") == "100.0% (95 % interval 72.2% to 100.0% over 10 episodes of one scenario)"
    assert " over " not in mean_interval({"a": [0.0], "b": [1.0]}).text()


def test_a_mixed_share_is_bootstrapped_by_scenario():
    estimate = share_interval({"a": [True, True], "b": [False, False]})
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def shifted(by, scenarios=8):
    before = {str(i): [i / 10, i / 10 + 0.02] for i in range(scenarios)}
    after = {key: [value + by for value in values] for key, values in before.items()}
    return before, after


@pytest.mark.parametrize(("by", "verdict"), [(0.1, "better"), (-0.1, "worse"), (0.0, "no difference seen")])
def test_pairing_by_scenario_sees_a_shift_that_is_small_against_the_spread(by, verdict):
    # Scenarios run from 0.0 to 0.72, so unpaired intervals overlap widely; each moves by the same amount.
    difference = paired_difference(*shifted(by))
    assert difference.mean == pytest.approx(by)
    assert (difference.low, difference.high) == (pytest.approx(by), pytest.approx(by))
    assert difference.verdict == verdict


def test_differences_that_go_both_ways_are_no_difference_seen():
    before = {str(i): [0.5] for i in range(8)}
    after = {str(i): [0.5 + (0.3 if i % 2 else -0.28)] for i in range(8)}
    difference = paired_difference(before, after)
    assert difference.mean == pytest.approx(0.01)
    assert difference.verdict == "no difference seen"


def test_rounding_errors_in_one_direction_are_no_difference():
    before = {str(i): [0.3] for i in range(8)}
    after = {str(i): [0.1 + 0.2] for i in range(8)}
    assert after["0"][0] > before["0"][0]
    assert paired_difference(before, after).verdict == "no difference seen"


def test_fewer_than_six_scenarios_get_no_verdict_however_large_the_difference():
    assert paired_difference(*shifted(0.5, scenarios=5)).verdict == "too few scenarios to tell"
    assert paired_difference(*shifted(0.5, scenarios=6)).verdict == "better"
    assert "from 5 scenarios only" in paired_difference(*shifted(0.5, scenarios=5)).text()


def test_scenarios_that_only_one_side_scored_do_not_count():
    difference = paired_difference({"a": [0.0], "b": [0.0], "c": []}, {"a": [1.0], "c": [1.0], "d": [9.0]})
    assert (difference.mean, difference.scenarios) == (1.0, 1)
    with pytest.raises(ValueError, match="share no scored scenario"):
        paired_difference({"a": [0.0]}, {"b": [0.0]})


def test_a_difference_is_read_in_one_line():
    difference = paired_difference({str(i): [0.25] for i in range(6)}, {str(i): [0.5] for i in range(6)})
    assert difference.text() == "+0.250 (95 % interval +0.250 to +0.250): better"


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_for_one_sample_both_are_the_share_and_they_part_as_k_grows(case):
    successes, samples = case
    assert pass_at_k(successes, samples, 1) == pytest.approx(successes / samples)
    assert pass_hat_k(successes, samples, 1) == pytest.approx(successes / samples)
    for k in range(2, samples + 1):
        assert pass_at_k(successes, samples, k) >= pass_at_k(successes, samples, k - 1) - 1e-12
        assert pass_hat_k(successes, samples, k) <= pass_hat_k(successes, samples, k - 1) + 1e-12


@pytest.mark.parametrize("arguments", [(3, 2, 1), (1, 2, 3), (1, 2, 0), (-1, 2, 1)])
def test_impossible_counts_are_refused(arguments):
    for function in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match=r"not possible|it can be 1 to 2"):
            function(*arguments)


def test_mean_and_std_by_hand():
    assert mean_and_std([1.0, 3.0]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="no value"):
        mean_and_std([])


def test_one_scenario_on_both_sides_has_a_difference_and_no_verdict():
    difference = paired_difference({"a": [0.0]}, {"a": [1.0]})
    assert (difference.low, difference.high) == (None, None)
    assert difference.text() == "+1.000 (one scenario, no interval): too few scenarios to tell"


def test_wilson_refuses_counts_that_cannot_be():
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="not possible"):
            wilson(successes, trials)
