"""Estimators of the divergence of the policy from a reference, one number for each token.

Notation of Schulman's note (joschu.net/blog/kl-approx.html): x is sampled from the policy and
r = reference(x) / policy(x).
Invariant: each estimator is 0 where both policies agree.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]


def kl_divergence(logprobs: Tensor, reference: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """KL(policy || reference) at each sampled token.

    Args:
        logprobs: log-probabilities under the policy, any shape.
        reference: the same tokens' log-probabilities under the reference.
        estimator: "k1" = -log r, unbiased and noisy; "k2" = (log r)^2 / 2, whose gradient as a loss is the right one
            on-policy (2510.01555); "k3" = r - 1 - log r, never negative, the one of DeepSeekMath (2402.03300).

    Returns:
        Same shape as `logprobs`, in nats.
    """
    log_ratio = reference - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(log_ratio) - log_ratio
