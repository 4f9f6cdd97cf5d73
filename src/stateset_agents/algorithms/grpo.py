"""The clipped policy-gradient objective of GRPO, token by token.

Invariant: the loss is a sum over trained tokens of `weight x (policy term + beta x KL term)`. The weights of a whole
optimizer step are known before it is cut into micro-batches, so no split of the batch can change the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .kl import KlEstimator, kl_divergence

Normalization = Literal["token", "sequence", "constant"]


def token_weights(lengths: Tensor, normalization: Normalization, *, constant: int = 0) -> Tensor:
    """Weight of each trained token of a conversation, for all conversations of one optimizer step.

    Args:
        lengths: (conversations,) trained tokens of each conversation, over all its rows; 0 is allowed.
        normalization: "token" gives every token of the step the same weight 1 / (all tokens) (DAPO, 2503.14476);
            "sequence" averages within a conversation, then over conversations (DeepSeekMath, 2402.03300: tokens of a
            long conversation weigh less); "constant" divides by conversations x `constant` (Dr. GRPO, 2503.20783).
        constant: the fixed length of "constant", in tokens.

    Returns:
        (conversations,) float64; conversations without trained tokens get 0.

    Raises:
        ValueError: `constant` is missing, or the step has no trained token.
    """
    lengths = lengths.to(torch.float64)
    total = lengths.sum()
    if total == 0:
        raise ValueError("the step has no trained token")
    if normalization == "token":
        weights = torch.ones_like(lengths) / total
    elif normalization == "sequence":
        weights = 1.0 / (lengths.clamp(min=1) * len(lengths))
    else:
        if constant < 1:
            raise ValueError(f"normalization 'constant' needs a length >= 1, not {constant}")
        weights = torch.full_like(lengths, 1.0 / (len(lengths) * constant))
    return torch.where(lengths > 0, weights, 0.0)


@dataclass(frozen=True)
class PolicyLoss:
    """What one micro-batch contributes.

    Attributes:
        loss: scalar; sums over micro-batches to the loss of the step.
        ratio: probability ratio of each token, without gradient.
        clipped: whether the clip decided the token's term.
        kl: divergence from the reference at each token, without gradient; None if there is no reference.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    kl: Tensor | None


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.0,
    reference: Tensor | None = None,
    kl_estimator: KlEstimator = "k3",
) -> PolicyLoss:
    """Clipped surrogate (PPO, 1707.06347) with group-relative advantages and a KL penalty in the loss.

    Each token contributes `weight x (-min(ratio x A, clip(ratio, 1 - clip_low, 1 + clip_high) x A) + beta x KL)`.

    Args:
        logprobs: log-probabilities under the policy that is trained, any shape; the gradient flows through it.
        old_logprobs: under the policy at the start of the step (equal values on the first pass: ratio 1).
        advantages: advantage of each token.
        weights: weight of each token (`token_weights`); 0 leaves a token out.
        clip_low, clip_high: width of the trust region below and above 1 (different widths: DAPO, 2503.14476).
        beta: coefficient of the KL term; 0 needs no reference.
        reference: log-probabilities under the reference policy.
        kl_estimator: see `kl_divergence`.

    Returns:
        Loss and measurements.

    Raises:
        ValueError: `beta` is not 0 but there is no reference.
    """
    if beta != 0.0 and reference is None:
        raise ValueError(f"beta is {beta}, but there are no reference log-probs")
    ratio = (logprobs - old_logprobs).exp()
    unclipped = ratio * advantages
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    terms = -torch.minimum(unclipped, bounded)
    divergence = None
    if reference is not None:
        divergence = kl_divergence(logprobs, reference, kl_estimator)
        terms = terms + beta * divergence
    return PolicyLoss(
        loss=(weights * terms).sum(),
        ratio=ratio.detach(),
        clipped=(bounded < unclipped).detach(),
        kl=None if divergence is None else divergence.detach(),
    )
