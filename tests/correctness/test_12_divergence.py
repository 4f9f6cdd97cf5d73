"""Row 12: an estimator of the KL in a place where its gradient is another one."""

import pytest
import torch

from stateset_agents.algorithms import kl_divergence, policy_loss

F64 = torch.float64
LOGITS = torch.tensor([0.3, -0.7, 1.1, 0.0], dtype=F64)
REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64).log()


def exact() -> torch.Tensor:
    """Gradient of KL(policy || reference) over four tokens."""
    logits = LOGITS.clone().requires_grad_()
    logs = logits.log_softmax(-1)
    (logs.exp() * (logs - REFERENCE)).sum().backward()
    return logits.grad


def expected(kind: str) -> torch.Tensor:
    """Mean gradient, over what the policy samples, of a KL in the loss."""
    logits = LOGITS.clone().requires_grad_()
    logs = logits.log_softmax(-1)
    often = logs.detach().exp()
    loss = policy_loss(
        logs, logs.detach(), torch.zeros(4, dtype=F64), often, beta=1.0, reference=REFERENCE, kl_estimator=kind
    ).loss
    loss.backward()
    return logits.grad


def in_reward() -> torch.Tensor:
    """Mean gradient of the policy term when the KL was taken from the reward."""
    logits = LOGITS.clone().requires_grad_()
    logs = logits.log_softmax(-1)
    penalties = -kl_divergence(logs.detach(), REFERENCE, "k1")
    policy_loss(logs, logs.detach(), penalties, logs.detach().exp()).loss.backward()
    return logits.grad


def test_k2_in_the_loss_and_k1_in_the_reward_have_the_gradient_of_the_divergence():
    """Mutation: (log r)^2 without the half, or the reference's sign, in algorithms/kl.py: fails."""
    assert expected("k2").tolist() == pytest.approx(exact().tolist(), abs=1e-12)
    assert in_reward().tolist() == pytest.approx(exact().tolist(), abs=1e-12)


def test_k1_in_the_loss_has_none_and_k3_has_that_of_the_other_direction():
    """What the configuration refuses, and what DeepSeekMath's choice does: KL(reference || policy), 2510.01555."""
    assert expected("k1").abs().max() < 1e-12
    logits = LOGITS.clone().requires_grad_()
    (REFERENCE.exp() * (REFERENCE - logits.log_softmax(-1))).sum().backward()
    assert expected("k3").tolist() == pytest.approx(logits.grad.tolist(), abs=1e-12)
    assert (expected("k3") - exact()).abs().max() > 0.05


def test_the_ratio_makes_k3_unbiased():
    """Mutation: the ratio without its gradient, in algorithms/policy.py: fails.

    With `kl_correction` the mean over what is sampled is sum of p x k3 = KL(policy || reference), gradient included.
    """
    logits = LOGITS.clone().requires_grad_()
    logs = logits.log_softmax(-1)
    policy_loss(
        logs,
        logs.detach(),
        torch.zeros(4, dtype=F64),
        logs.detach().exp(),
        beta=1.0,
        reference=REFERENCE,
        kl_correction=True,
    ).loss.backward()
    assert logits.grad.tolist() == pytest.approx(exact().tolist(), abs=1e-12)
