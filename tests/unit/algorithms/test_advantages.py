"""Advantages of small groups, worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stateset_agents.algorithms import group_relative


def group(*rewards: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([rewards], dtype=dtype)


def test_a_wrong_sample_is_pushed_down_three_times_less_than_the_right_one_is_pushed_up():
    assert group_relative(group(1, 0, 0, 0), scale="none").tolist() == [[0.75, -0.25, -0.25, -0.25]]


def test_a_sample_without_a_score_gets_0_and_is_not_in_the_baseline():
    """Mutation: dividing by the number of samples puts the mean at 1/3."""
    rewards = group(1, math.nan, 0)
    assert group_relative(rewards, scale="none").tolist() == [[0.5, 0.0, -0.5]]
    # squares 0.25 + 0.25 = 0.5, over 2 - 1 scored samples
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert group_relative(rewards)[0].tolist() == pytest.approx([expected, 0.0, -expected], rel=1e-14)


def test_groups_do_not_see_each_other():
    rewards = torch.tensor([[1.0, 0.0], [101.0, 99.0]], dtype=torch.float64)
    assert group_relative(rewards, scale="none").tolist() == [[0.5, -0.5], [1.0, -1.0]]
    both = group_relative(rewards)
    assert torch.equal(both[:1], group_relative(rewards[:1]))
    assert torch.equal(both[1:], group_relative(rewards[1:]))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16), st.floats(-10, 10))
def test_advantages_sum_to_nothing_and_do_not_change_when_all_rewards_move_alike(rewards, shift):
    advantages = group_relative(group(*rewards), scale="none")
    assert abs(advantages.sum().item()) < 1e-12
    moved = group_relative(group(*(reward + shift for reward in rewards)), scale="none")
    assert torch.allclose(advantages, moved, atol=5e-8)


@pytest.mark.parametrize("rewards", [(1.0,), (1.0, math.nan), (math.nan, math.nan)])
def test_a_group_without_two_scored_samples_has_no_baseline(rewards):
    with pytest.raises(ValueError, match="at least two scored samples"):
        group_relative(group(*rewards))


@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_an_infinite_reward_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be finite"):
        group_relative(group(1.0, wrong))
