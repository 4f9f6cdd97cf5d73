"""Estimators of the divergence: values by hand, and what their gradients are when all samples are enumerated."""

import math

import pytest
import torch

from stateset_agents.algorithms import kl_divergence


def test_the_three_estimators_where_the_reference_is_twice_as_likely():
    """Mutation: the ratio the other way round makes k1 positive and k3 equal 0.193."""
    policy, reference = torch.tensor([0.25]).double().log(), torch.tensor([0.5]).double().log()
    # r = 2: -log r, (log r)^2 / 2, r - 1 - log r
    assert kl_divergence(policy, reference, "k1").item() == pytest.approx(-math.log(2), rel=1e-14)
    assert kl_divergence(policy, reference, "k2").item() == pytest.approx(math.log(2) ** 2 / 2, rel=1e-14)
    assert kl_divergence(policy, reference, "k3").item() == pytest.approx(1 - math.log(2), rel=1e-14)
    assert kl_divergence(policy, reference).item() == pytest.approx(0.3068528, rel=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_policies_that_agree_have_no_divergence(estimator):
    logprobs = torch.tensor([-0.1, -3.0, -20.0])
    assert kl_divergence(logprobs, logprobs.clone(), estimator).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("estimator", "slope"), [("k1", 1.0), ("k2", -math.log(2)), ("k3", -1.0)])
def test_the_slope_at_a_token_that_the_reference_likes_twice_as_much(estimator, slope):
    """k1: 1; k2: l - f = -log 2; k3: 1 - exp(f - l) = 1 - 2. Mutation: k2 without the half has twice the slope."""
    policy = torch.tensor([0.25]).double().log().requires_grad_()
    kl_divergence(policy, torch.tensor([0.5]).double().log(), estimator).sum().backward()
    assert policy.grad.tolist() == pytest.approx([slope], rel=1e-14)


def test_a_tiny_difference_is_not_lost_to_rounding():
    """Mutation: exp(x) - 1 for expm1(x) gives 0 in float32."""
    policy = torch.tensor([-1.0])
    reference = policy + 2.0**-13
    assert kl_divergence(policy, reference, "k3").item() == pytest.approx(2.0**-27, rel=1e-2)


def test_of_the_losses_only_k2_has_the_gradient_of_the_divergence():
    """All samples of a policy over three tokens, weighted by their probability: no sampling noise."""
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    reference = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64).log_softmax(0)

    def slope(objective) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        objective(leaf.log_softmax(0)).backward()
        return leaf.grad

    def expected_loss(estimator):
        return lambda logp: (logp.exp().detach() * kl_divergence(logp, reference, estimator)).sum()

    true = slope(lambda logp: (logp.exp() * (logp - reference)).sum())
    assert true.abs().max() > 0.1
    assert torch.allclose(slope(expected_loss("k2")), true, atol=1e-14)
    assert torch.allclose(slope(expected_loss("k1")), torch.zeros(3, dtype=torch.float64), atol=1e-14)
    assert not torch.allclose(slope(expected_loss("k3")), true, atol=1e-2)
    # the values of k1 and k3 are unbiased
    value = (logits.log_softmax(0).exp() * (logits.log_softmax(0) - reference)).sum()
    for estimator in ("k1", "k3"):
        assert torch.allclose(expected_loss(estimator)(logits.log_softmax(0)), value, atol=1e-14)
