"""The natural step on problems whose answer is known."""

import pytest
import torch

from stateset_agents.algorithms import conjugate_gradient, line_search, natural_step


def test_two_unknowns_are_solved_in_two_products():
    """4x + y = 1, x + 3y = 2: x = 1/11, y = 7/11."""
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, torch.tensor([1.0, 2.0], dtype=torch.float64), iterations=2)
    assert found.tolist() == pytest.approx([1 / 11, 7 / 11])


def test_the_step_of_a_diagonal_fisher_matrix():
    """Mutation: the plain gradient. F = diag(4, 1), g = (2, 1): F^-1 g = (0.5, 1); g F^-1 g = 2.

    With max_kl 0.01 the factor is sqrt(0.02 / 2) = 0.1, and 1/2 s F s = 1/2 (0.0025 x 4 + 0.01) = 0.01.
    """
    fisher = torch.tensor([4.0, 1.0], dtype=torch.float64)
    step = natural_step(torch.tensor([2.0, 1.0], dtype=torch.float64), lambda v: fisher * v, max_kl=0.01)
    assert step.tolist() == pytest.approx([0.05, 0.1])
    assert float(0.5 * (fisher * step * step).sum()) == pytest.approx(0.01)


def test_no_gradient_is_no_step():
    assert natural_step(torch.zeros(3), lambda v: v, max_kl=0.1).tolist() == [0.0, 0.0, 0.0]


def test_a_step_is_halved_until_it_is_inside_and_better():
    """Gains and KL by share: 1 breaks the bound, 1/2 is worse than nothing, 1/4 is taken."""
    told = {1.0: (2.0, 0.5), 0.5: (-1.0, 0.05), 0.25: (0.3, 0.02)}
    asked = []

    def measure(share):
        asked.append(share)
        return told[share]

    found = line_search(measure, max_kl=0.1)
    assert (found.share, found.kl, found.gain) == (0.25, 0.02, 0.3)
    assert asked == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("bad", [(float("nan"), 0.0), (1.0, float("nan")), (1.0, 0.2), (0.0, 0.0)])
def test_where_nothing_is_good_enough_the_last_place_is_the_old_one(bad):
    asked = []

    def measure(share):
        asked.append(share)
        return bad

    assert line_search(measure, max_kl=0.1, backtracks=3).share == 0.0
    assert asked == [1.0, 0.5, 0.25, 0.125, 0.0]


@pytest.mark.parametrize("seed", range(100))
def test_the_bound_on_the_divergence_is_kept_on_random_policies(seed):
    """Mutation: no line search. Softmax policies over 6 actions in 4 states, with exact KL and Fisher matrix."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features, weight = random(4, 5), random(5, 6)
    advantages, max_kl = 3 * random(4, 6), 0.3
    old = (features @ weight).log_softmax(-1)

    def divergence(at):
        now = (features @ at).log_softmax(-1)
        return (old.exp() * (old - now)).sum(-1).mean()

    def objective(at):
        return ((features @ at).log_softmax(-1).exp() * advantages).sum(-1).mean()

    leaf = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(leaf), leaf)
    hessian = torch.autograd.functional.hessian(divergence, weight).reshape(30, 30)
    step = natural_step(gradient.flatten(), lambda v: hessian @ v + 1e-6 * v, max_kl=max_kl, iterations=30)
    step = step.view_as(weight)
    reached = weight.clone()

    def measure(share):
        reached.copy_(weight + share * step)
        return float(objective(reached) - objective(weight)), float(divergence(reached))

    found = line_search(measure, max_kl=max_kl)
    assert found.share > 0
    assert float(divergence(reached)) <= max_kl
    assert float(objective(reached)) > float(objective(weight))
