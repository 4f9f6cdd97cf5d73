"""Losses of pairs with numbers worked out by hand; test_trl_preferences compares them with those of TRL."""

import math

import pytest
import torch

from stateset_agents.algorithms import preference_loss

TWO = math.log(2.0)


def pair(values):
    """Policy and reference log-probs, so that the chosen answer gained log 2 and the rejected one lost as much."""
    return [torch.tensor([value], dtype=torch.float64) for value in values]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sigmoid", -math.log(0.8)),  # s(log 4) = 0.8
        ("sigmoid_norm", -math.log(2**1.5 / (1 + 2**1.5))),  # log 2 over two tokens and log 2 over one
        ("hinge", 0.0),  # log 4 is above 1
        ("ipo", (1.5 * TWO - 0.5) ** 2),
        ("exo_pair", 0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1)),
        ("nca_pair", -1.5 * math.log(2 / 3) - 0.5 * math.log(1 / 3)),
        ("robust", (-0.9 * math.log(0.8) + 0.1 * math.log(0.2)) / 0.8),
        ("bco_pair", -2 * math.log(2 / 3)),
        ("sppo_hard", 2 * (TWO - 0.5) ** 2),
        ("aot", -0.9 * math.log(0.8) - 0.1 * math.log(0.2)),  # one pair faces itself
        ("aot_unpaired", -0.9 * math.log(0.8) - 0.1 * math.log(0.2)),
        ("apo_zero", 1 - 2 / 3 + 1 / 3),
        ("apo_down", 2 / 3 + 1 - 0.8),
        ("discopop", 0.25),  # s(20 log 4) is 1, so exp(-log 4)
    ],
)
def test_each_loss(kind, expected):
    """Mutation: any sign or factor of a formula."""
    chosen, rejected, reference_chosen, reference_rejected = pair([-3.0 + TWO, -5.0 - TWO, -3.0, -5.0])
    lengths = (torch.tensor([2.0]), torch.tensor([1.0]))
    result = preference_loss(
        chosen,
        rejected,
        reference_chosen,
        reference_rejected,
        kind=kind,
        beta=1.0,
        lengths=lengths,
        label_smoothing=0.1 if kind in ("exo_pair", "robust", "aot", "aot_unpaired") else 0.0,
    )
    assert result.losses.item() == pytest.approx(expected, abs=1e-9)
    assert result.margins.item() == pytest.approx(1.5 * TWO if kind in ("sigmoid_norm", "ipo") else 2 * TWO)


@pytest.mark.parametrize("kind", ["aot", "aot_unpaired"])
def test_values_of_the_same_rank_face_each_other(kind):
    """3 and 1 against 0 and 2: 3 faces 2, 1 faces 0. The gradient of -log s(t) at 1 is s(1) - 1.

    Mutations: pairs as they come, the gradient of the lower side forgotten.
    """
    upper, lower = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0])
    zero = torch.zeros(2)
    chosen = upper.clone().requires_grad_()
    if kind == "aot":  # chosen - rejected of the policy against that of the reference
        result, other = preference_loss(chosen, zero, lower, zero, kind=kind, beta=1.0), None
    else:
        other = lower.clone().requires_grad_()
        result = preference_loss(chosen, other, zero, zero, kind=kind, beta=1.0)
    assert result.losses.tolist() == pytest.approx([math.log(1 + math.exp(-1.0))] * 2)
    result.losses.sum().backward()
    slope = -1 / (1 + math.e)
    assert chosen.grad.tolist() == pytest.approx([slope] * 2)
    if other is not None:
        assert other.grad.tolist() == pytest.approx([-slope] * 2)


def test_a_mean_over_tokens_needs_their_number():
    with pytest.raises(ValueError, match="needs the lengths"):
        preference_loss(*pair([-1.0, -1.0, -1.0, -1.0]), kind="ipo")
