"""Row 23: a clip on the wrong side, or a ratio without gradient."""

import pytest
import torch

from stateset_agents.algorithms import policy_loss

F64 = torch.float64
RATIOS = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5], dtype=F64)
ADVANTAGES = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0], dtype=F64)
CLIPPED = [False, True, False, False, True]
"""Up with a good token, and down with a bad one, are clipped; the ways back are not."""


def loss(logprobs: torch.Tensor, surrogate: str = "clip") -> torch.Tensor:
    return policy_loss(
        logprobs, torch.zeros(5, dtype=F64), ADVANTAGES, torch.full((5,), 0.2, dtype=F64), surrogate=surrogate
    ).loss


@pytest.mark.parametrize("surrogate", ["clip", "sapo", "ratio"])
def test_gradients_are_those_of_finite_differences(surrogate):
    """Mutation: ratio.detach() in algorithms/policy.py: fails."""
    logprobs = RATIOS.log().requires_grad_()
    loss(logprobs, surrogate).backward()
    step = 1e-6
    for place in range(5):
        moved = torch.zeros(5, dtype=F64)
        moved[place] = step
        with torch.no_grad():
            slope = (loss(logprobs + moved, surrogate) - loss(logprobs - moved, surrogate)) / (2 * step)
        assert logprobs.grad[place].item() == pytest.approx(slope.item(), abs=1e-8)


def test_the_tokens_that_have_gone_far_enough_have_no_gradient():
    """Slope -0.2 x ratio x advantage where the clip is open. Mutation: maximum for minimum: fails at four tokens."""
    logprobs = RATIOS.log().requires_grad_()
    result = policy_loss(logprobs, torch.zeros(5, dtype=F64), ADVANTAGES, torch.full((5,), 0.2, dtype=F64))
    result.loss.backward()
    assert result.clipped.tolist() == CLIPPED
    assert logprobs.grad.tolist() == pytest.approx([-0.2, 0.0, 0.3, -0.1, 0.0])
