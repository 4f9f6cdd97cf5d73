"""Row 2. Dividing by a group's deviation turns groups of equal rewards into noise, and hides which deviation it is."""

import math

import pytest
import torch

from stateset_agents.algorithms import group_relative
from stateset_agents.training.samples import samples_of


def group(*rewards: float) -> torch.Tensor:
    return torch.tensor([rewards], dtype=torch.float64)


def test_the_deviation_is_bessel_corrected_and_1e_4_is_added_to_it():
    # mean 0.25; squares 0.5625 + 3 x 0.0625 = 0.75; 0.75 / 3 = 0.25, whose root is 0.5
    """Mutation: count for count - 1 in algorithms/advantages.py: fails with 1.7317 for 1.4997; eps 1e-6: fails with
    1.499997.
    """
    expected = [0.75 / 0.5001, *[-0.25 / 0.5001] * 3]
    assert group_relative(group(1, 0, 0, 0))[0].tolist() == pytest.approx(expected, rel=1e-14)
    assert group_relative(group(1, 0, 0, 0), eps=0.5)[0].tolist() == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize(("scale", "first"), [("std", 0.875 / (math.sqrt(0.125) + 1e-4)), ("none", 0.875)])
def test_one_success_in_eight_is_amplified_only_where_the_deviation_divides(kit, scale, first):
    """Mean 1/8; squares 49/64 + 7 x 1/64 = 7/8; 7/8 / 7 = 1/8: the deviation makes 0.875 a 2.47.

    Mutation: scale="std" whatever the settings say in training/learner.py: fails with 2.474 for 0.875.
    """
    prompt = kit.ids(4, 0)
    talks = [(float(place == 0), [kit.row((prompt, False), ([9, place + 2], True))]) for place in range(8)]
    samples = samples_of([kit.group(*talks)], kit.config(scale_rewards=scale, num_generations=8), 20)
    advantages = [sample.advantage for sample in samples]
    assert advantages == pytest.approx([first, *[-first / 7] * 7], rel=1e-14)


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize(
    "rewards",
    [
        (0.1, 0.1, 0.1),  # their mean is 0.10000000000000002
        (0.1 + 0.2, 0.3, 0.3),  # 0.30000000000000004 and 0.3
        (0.1 + 0.2 - 0.3, 0.0),  # 5.6e-17 and 0
        (1e6 + 0.1, 1e6 + 0.1, 1e6 + 0.1),
        (-0.7, -0.7, math.nan),
    ],
)
def test_equal_rewards_give_exactly_nothing(rewards, scale):
    """Mutation: no comparison in algorithms/advantages.py: fails with 1e-13 for 0.1 three times; the largest and the
    smallest compared by ==: fails for 0.1 + 0.2.
    """
    assert group_relative(group(*rewards), scale=scale).tolist() == [[0.0] * len(rewards)]


def test_equal_rewards_in_float32_give_exactly_nothing():
    """Mutation: both of the above in algorithms/advantages.py fail."""
    summed = torch.tensor([[0.1, 0.7]]) + torch.tensor([[0.6, 0.0]])
    assert summed[0, 0] != summed[0, 1]
    assert group_relative(summed).tolist() == [[0.0, 0.0]]


def test_a_small_difference_is_one():
    """Mutation: SAME_REWARD = 1e-4 in algorithms/advantages.py: fails with 0 for 5e-7."""
    assert group_relative(group(1e-6, 0), scale="none").tolist() == [[5e-7, -5e-7]]
    assert group_relative(group(1e6 + 1, 1e6), scale="none").tolist() == [[0.5, -0.5]]
