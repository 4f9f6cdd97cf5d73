"""Generalized advantages and the value loss, worked out by hand."""

import pytest
import torch

from stateset_agents.algorithms import generalized_advantages, value_loss


def test_three_actions_by_hand():
    """Mutations: the value after the end taken from the first action, discount and decay exchanged.

    deltas: r0 + 0.5 V1 - V0 = 0 + 0.5 - 1 = -0.5; 0 + 0.5 x 2 - 1 = 0; 4 + 0 - 2 = 2.
    A2 = 2; A1 = 0 + 0.5 x 0.8 x 2 = 0.8; A0 = -0.5 + 0.4 x 0.8 = -0.18.
    """
    advantages, returns = generalized_advantages([0.0, 0.0, 4.0], [1.0, 1.0, 2.0], discount=0.5, decay=0.8)
    assert advantages == pytest.approx([-0.18, 0.8, 2.0])
    assert returns == pytest.approx([0.82, 1.8, 4.0])


def test_without_decay_it_is_the_error_of_one_step_and_with_all_of_it_the_return():
    assert generalized_advantages([1.0, 2.0], [0.5, 0.25], decay=0.0)[0] == pytest.approx([0.75, 1.75])
    assert generalized_advantages([1.0, 2.0], [0.5, 0.25], decay=1.0)[0] == pytest.approx([2.5, 1.75])


def test_rewards_and_values_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 rewards but 1 values"):
        generalized_advantages([1.0, 2.0], [0.5])


def test_the_larger_of_plain_and_clipped_error_counts():
    """Mutation: the smaller one.

    Target 1. From 0 to 0.5, held at 0.2: errors 0.25 and 0.64, the larger is 0.64, and it has no slope.
    From 0 to -0.1, inside the clip: both 1.21, slope 2 x -1.1 x 0.5 x weight 0.25.
    """
    values = torch.tensor([0.5, -0.1], requires_grad=True)
    weights = torch.tensor([0.5, 0.25])
    loss = value_loss(values, torch.zeros(2), torch.ones(2), weights, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * (0.5 * 0.64 + 0.25 * 1.21))
    loss.backward()
    assert values.grad.tolist() == pytest.approx([0.0, 0.25 * -1.1])
    assert value_loss(values, torch.zeros(2), torch.ones(2), weights, clip=None).item() == pytest.approx(
        0.5 * (0.5 * 0.25 + 0.25 * 1.21)
    )
