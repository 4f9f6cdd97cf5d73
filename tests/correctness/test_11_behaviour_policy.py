"""Row 11: the wrong behaviour policy in the ratio."""

import pytest
import torch

from stateset_agents.algorithms import policy_loss, sampler_correction

F64 = torch.float64


def test_what_is_expected_of_the_sampler_is_what_the_old_policy_would_have_given():
    """Three policies over three tokens: one sampled, one began the step, one is trained.

    Over all three tokens, each as often as the sampler draws it, the gradient must be that of the old policy's draws:
    sum over tokens of old(t) A(t) d log p(t). That needs the weight old / sampler beside the ratio p / old.

    Mutation: sampled in the place of old_logprobs, or the correction left out, in algorithms/importance.py: fails with
    gradients that differ by 0.1 and more.
    """
    sampler = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    old = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    advantages = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    logits = old.log().clone().requires_grad_()
    chosen = logits.log_softmax(-1)
    correction = sampler_correction(old.log(), sampler.log(), "token_truncate", cap=1e6)
    policy_loss(chosen, old.log(), advantages, sampler, correction=correction).loss.backward()
    # exactly: - sum over t of old_t A_t (onehot_t - old) = -(old A) + (sum old A) old
    weighted = old * advantages
    assert logits.grad.tolist() == pytest.approx((-weighted + weighted.sum() * old).tolist(), abs=1e-12)
