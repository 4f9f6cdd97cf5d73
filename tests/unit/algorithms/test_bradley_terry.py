"""The loss of Bradley and Terry for a linear reward, and the descent that minimises it."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from stateset_agents.algorithms.bradley_terry import bradley_terry, fit_linear


def doubles(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_a_head_of_zeros_is_a_toss_of_a_coin_and_is_pulled_half_of_the_mean_difference():
    loss, gradient = bradley_terry(torch.zeros(2, dtype=torch.float64), doubles([2.0, 0.0], [0.0, 4.0]))
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)
    assert gradient.tolist() == [-0.5, -1.0]


def test_a_margin_of_log_3_is_right_three_times_in_four():
    # weight . difference = log 3: sigmoid 0.75, loss log(4 / 3); the gradient is -(1 - 0.75) x difference.
    weight, difference = torch.tensor([math.log(3.0), 5.0], dtype=torch.float64), doubles([1.0, 0.0])
    loss, gradient = bradley_terry(weight, difference)
    assert loss.item() == pytest.approx(0.287682, abs=1e-6)
    assert gradient.tolist() == pytest.approx([-0.25, 0.0])
    # l2 0.1 adds 0.05 x (1.0986^2 + 25) = 1.310347 to the loss and 0.1 x weight to the gradient.
    loss, gradient = bradley_terry(weight, difference, 0.1)
    assert loss.item() == pytest.approx(0.287682 + 1.310347, abs=1e-6)
    assert gradient.tolist() == pytest.approx([-0.25 + 0.1098612, 0.5])


def test_a_pair_that_is_far_the_wrong_way_round_costs_its_margin_and_not_infinity():
    loss, gradient = bradley_terry(torch.tensor([-1000.0], dtype=torch.float64), doubles([1.0]))
    assert loss.item() == 1000.0
    assert gradient.tolist() == [-1.0]


def test_the_gradient_is_that_of_the_loss():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=True)
    chosen, rejected = torch.randn(2, 11, 7, generator=generator, dtype=torch.float64)
    margins = chosen @ weight - rejected @ weight
    (-logsigmoid(margins).mean() + 0.15 * weight.square().sum()).backward()
    _, gradient = bradley_terry(weight.detach(), chosen - rejected, 0.3)
    torch.testing.assert_close(gradient, weight.grad)


# Three of four such pairs want the input to be large: sigmoid(w) = 3/4, so they are explained best at w = log 3.
THREE_IN_FOUR = doubles([1.0], [1.0], [1.0], [-1.0])


def test_the_descent_ends_where_the_penalty_holds_it():
    # One input, difference 1: sigmoid(-w) = l2 x w. With l2 = 0.25 / log 3 the answer is w = log 3.
    found = fit_linear(doubles([1.0]), THREE_IN_FOUR, l2=0.25 / math.log(3.0))
    assert found.weight.tolist() == pytest.approx([math.log(3.0)], abs=1e-4)
    assert found.loss == pytest.approx(math.log(4 / 3), abs=1e-4)


def test_it_stops_where_the_watched_pairs_are_explained_best_long_before_the_fitted_ones_are():
    # The second input tells nothing, but its size makes the steps small.
    fitted = doubles([1.0, 0.0], [0.0, 10.0], [0.0, -10.0])
    found = fit_linear(fitted, doubles(*([first, 0.0] for (first,) in THREE_IN_FOUR.tolist())), l2=1e-4)
    later = fit_linear(fitted, fitted[:1], l2=1e-4)
    assert found.weight.tolist() == pytest.approx([math.log(3.0), 0.0], abs=0.05)
    assert found.watched_loss == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4.0), abs=1e-3)
    assert later.weight[0] > 3.0
    assert found.steps < later.steps
    assert later.loss < found.loss


def test_pairs_that_contradict_the_watched_ones_teach_nothing():
    found = fit_linear(doubles([1.0], [1.0]), doubles([-1.0]), l2=0.1)
    assert found.steps == 0
    assert found.weight.tolist() == [0.0]
    assert found.watched_loss == pytest.approx(math.log(2.0))


def test_it_ends_when_nothing_gets_better():
    """Mutation: patience without end."""
    found = fit_linear(doubles([1.0]), THREE_IN_FOUR, l2=0.1, max_steps=10**12)
    assert found.watched_loss == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4.0), abs=1e-3)
