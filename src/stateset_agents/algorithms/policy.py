"""Policy-gradient objectives, token by token.

Invariant: the loss is a sum over trained tokens of `weight x term`. The weights of a whole optimizer step are known
before it is cut into micro-batches, so no split of the batch can change the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .importance import Level, importance_ratio, sequence_sums
from .kl import KlEstimator, kl_divergence

Normalization = Literal["token", "sequence", "constant", "sum"]
Surrogate = Literal["clip", "cispo", "sapo", "vespo", "gradient", "ratio"]

SAPO_TEMPERATURES = (1.0, 1.05)
"""For advantages above 0, and for the others (SAPO, 2511.20347)."""
VESPO_SHAPES = ((2.0, 3.0), (3.0, 2.0))
"""(k, lambda) of the gamma weight for advantages of at least 0, and for negative ones (VESPO, 2602.10693)."""


def token_weights(lengths: Tensor, normalization: Normalization, *, constant: int = 0) -> Tensor:
    """Weight of each trained token of a conversation, for all conversations of one optimizer step.

    Args:
        lengths: (conversations,) trained tokens of each conversation, over all its rows; 0 is allowed.
        normalization: "token" gives every token of the step the same weight 1 / (all tokens) (DAPO, 2503.14476);
            "sequence" averages within a conversation, then over conversations (DeepSeekMath, 2402.03300: tokens of a
            long conversation weigh less); "constant" divides by conversations x `constant` (Dr. GRPO, 2503.20783);
            "sum" adds up a conversation and averages over conversations (LUSPO, 2602.05261).
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
    elif normalization == "sum":
        weights = torch.full_like(lengths, 1.0 / len(lengths))
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
        ratio: probability ratio of each token, without gradient; that of its conversation where ratios are taken over
            conversations.
        clipped: whether a clip decided the token's term.
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
    surrogate: Surrogate = "clip",
    level: Level = "token",
    conversations: Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_cap: float | None = None,
    correction: Tensor | None = None,
    kept: Tensor | None = None,
    beta: float = 0.0,
    reference: Tensor | None = None,
    kl_estimator: KlEstimator = "k3",
    kl_correction: bool = False,
) -> PolicyLoss:
    """A surrogate of the policy gradient, and a KL penalty in the loss.

    Each token contributes `weight x (kept x correction x term + beta x KL)`. With r the ratio and A the advantage, the
    term is

    - "clip": -min(min(r, ratio_cap) A, clip(r, 1 - clip_low, 1 + clip_high) A) (PPO, 1707.06347; the cap on the side
      that the clip leaves open: 1912.09729);
    - "cispo": -min(r, ratio_cap) A log p, the factor without gradient (MiniMax-M1, 2506.13585);
    - "sapo": -(4 / t) sigmoid(t (r - 1)) A, t by the sign of A (2511.20347);
    - "vespo": -phi(w) A log p, phi a gamma weight of the conversation's ratio w, without gradient (2602.10693);
    - "gradient": -A log p (REINFORCE);
    - "ratio": -r A (the objective of TRPO, 1502.05477).

    Args:
        logprobs: (N,) log-probabilities under the policy that is trained; the gradient flows through it.
        old_logprobs: (N,) under the policy at the start of the step (equal values on the first pass: ratio 1).
        advantages: (N,) advantage of each token.
        weights: (N,) weight of each token (`token_weights`); 0 leaves a token out.
        surrogate: which term.
        level: what a ratio is taken over, see `importance_ratio`.
        conversations: (N,) index of each token's conversation; needed by all levels but "token", and by "vespo".
        clip_low, clip_high: width of the trust region below and above 1 (different widths: DAPO, 2503.14476).
        ratio_cap: the largest ratio; None is no cap.
        correction: (N,) weight against the difference between sampler and learner (`sampler_correction`).
        kept: (N,) bool, False where the term is left out (`masks`); None keeps all.
        beta: coefficient of the KL term; 0 needs no reference.
        reference: (N,) log-probabilities under the reference policy.
        kl_estimator: see `kl_divergence`.
        kl_correction: multiply the KL by the ratio, gradient included, which makes it unbiased off-policy
            (DeepSeek-V3.2, 2512.02556).

    Returns:
        Loss and measurements.

    Raises:
        ValueError: `beta` is not 0 but there is no reference, or `conversations` is missing.
    """
    if beta != 0.0 and reference is None:
        raise ValueError(f"beta is {beta}, but there are no reference log-probs")
    ratio = importance_ratio(logprobs, old_logprobs, level, conversations)
    clipped = torch.zeros_like(ratio, dtype=torch.bool)
    if surrogate == "clip":
        capped = ratio if ratio_cap is None else ratio.clamp(max=ratio_cap)
        bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
        terms = -torch.minimum(capped * advantages, bounded)
        clipped = (bounded < ratio * advantages) | ((capped < ratio) & (advantages != 0.0))
    elif surrogate == "cispo":
        factor = ratio.detach() if ratio_cap is None else ratio.detach().clamp(max=ratio_cap)
        terms = -factor * advantages * logprobs
        clipped = factor < ratio
    elif surrogate == "sapo":
        above, below = SAPO_TEMPERATURES
        temperature = torch.where(advantages > 0, above, below).to(ratio.dtype)
        terms = -torch.sigmoid(temperature * (ratio - 1.0)) * 4.0 / temperature * advantages
    elif surrogate == "vespo":
        terms = -_gamma_weight(logprobs, old_logprobs, advantages, conversations, correction) * advantages * logprobs
    elif surrogate == "ratio":
        terms = -ratio * advantages
    else:
        terms = -advantages * logprobs
    if correction is not None and surrogate != "vespo":
        terms = correction * terms
    if kept is not None:
        terms = torch.where(kept, terms, 0.0)
    divergence = None
    if reference is not None:
        divergence = kl_divergence(logprobs, reference, kl_estimator)
        if kl_correction:
            divergence = divergence * ratio
        terms = terms + beta * divergence
    return PolicyLoss(
        loss=(weights * terms).sum(),
        ratio=ratio.detach(),
        clipped=clipped.detach(),
        kl=None if divergence is None else divergence.detach(),
    )


@torch.no_grad()
def _gamma_weight(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, conversations: Tensor | None, correction: Tensor | None
) -> Tensor:
    """phi(w) = exp(lambda + k log w - lambda w) with w the ratio of the conversation; phi(1) = 1."""
    smallest, largest = torch.log(torch.tensor(1e-8)).item(), 20.0
    total = sequence_sums((logprobs - old_logprobs).clamp(-20.0, 20.0), conversations)
    if correction is not None:
        total = total + sequence_sums(correction.log().clamp(smallest, 20.0), conversations)
    log_ratio = total.clamp(smallest, largest)
    (k_above, lambda_above), (k_below, lambda_below) = VESPO_SHAPES
    k = torch.where(advantages >= 0, k_above, k_below)
    rate = torch.where(advantages >= 0, lambda_above, lambda_below)
    return (rate + k * log_ratio - rate * log_ratio.exp()).exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
