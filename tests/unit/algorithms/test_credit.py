"""Advantages of turns, several rewards, and baselines beside the group."""

import pytest
import torch

from stateset_agents.algorithms import (
    above_batch,
    group_relative,
    leave_one_out,
    normalize_then_sum,
    standardized,
    turn_credit,
)

F64 = torch.float64


def test_leave_one_out_by_hand():
    """Mutation: the mean of all. Of (3, 0, 0) the others' means are 0, 1.5 and 1.5."""
    rewards = torch.tensor([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=F64)
    assert leave_one_out(rewards).tolist() == [[3.0, -1.5, -1.5], [0.0, 0.0, 0.0]]


def test_a_sample_without_a_score_is_no_other():
    rewards = torch.tensor([[3.0, float("nan"), 1.0]], dtype=F64)
    assert leave_one_out(rewards).tolist() == [[2.0, 0.0, -2.0]]


def test_the_mean_of_the_step_is_the_baseline():
    assert above_batch(torch.tensor([1.0, 2.0, 6.0], dtype=F64)).tolist() == [-2.0, -1.0, 3.0]
    assert above_batch(torch.tensor([0.3, 0.1 + 0.2], dtype=F64)).tolist() == [0.0, 0.0]


def test_standardized_by_hand():
    """(1, 3): mean 2, deviation sqrt(2)."""
    assert standardized(torch.tensor([1.0, 3.0], dtype=F64), eps=0.0).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert standardized(torch.tensor([5.0], dtype=F64)).tolist() == [0.0]


def test_the_reward_with_the_widest_spread_does_not_decide():
    """Mutation: the sum compared. The second reward is a hundred times as wide, and weighs half."""
    rewards = torch.tensor([[[0.0, 100.0], [1.0, 0.0], [0.5, 50.0]]], dtype=F64)
    weights = torch.tensor([2.0, 1.0], dtype=F64)
    assert normalize_then_sum(rewards, weights)[0].argmax() == 1
    assert group_relative((rewards * weights).sum(-1))[0].argmax() == 0


def test_turns_by_hand():
    """Two conversations of two turns, tokens (1, 3) each; returns (4, 0) and (2, 2).

    Means by turn (3, 1), differences (1, -1) and (-1, 1); token means (1 - 3) / 4 = -0.5 and 0.5.
    """
    own = torch.tensor([1.0, -1.0], dtype=F64)
    found = turn_credit(own, [[4.0, 0.0], [2.0, 2.0]], [[1, 3], [1, 3]], scale=False)
    assert found == [pytest.approx([2.5, 0.5]), pytest.approx([-2.5, -0.5])]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", [True, False])
def test_more_turns_are_no_bonus(seed, scale):
    """Mutation: the difference added as it is. The token mean of each conversation is its own advantage."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 6, (5,), generator=generator).tolist()
    returns = [torch.randn(n, generator=generator, dtype=F64).tolist() for n in counts]
    lengths = [torch.randint(1, 30, (n,), generator=generator).tolist() for n in counts]
    own = torch.randn(5, generator=generator, dtype=F64)
    for advantage, turns, tokens in zip(
        own.tolist(), turn_credit(own, returns, lengths, scale=scale), lengths, strict=True
    ):
        mean = sum(n * one for n, one in zip(tokens, turns, strict=True)) / sum(tokens)
        assert mean == pytest.approx(advantage)


def test_a_turn_without_trained_tokens_is_compared_with_nothing():
    """Code wrote the first turn of one conversation; the other's earned 1, and there is no other to compare it with.

    Second turns earned 1 and 3, mean 2: differences -1 and 1. Mutation: 0 for what was never earned, a mean of 0.5.
    """
    credit = turn_credit(torch.zeros(2), [[0.0, 1.0], [1.0, 3.0]], [[0, 2], [2, 2]], scale=False)
    assert credit[0][1] == 0.0  # -1 less its own token mean of -1
    assert credit[1] == [-0.5, 0.5]  # 0 and 1 less their token mean of 0.5
