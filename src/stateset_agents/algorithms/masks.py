"""Which tokens a policy loss learns from.

Invariant: a mask says which terms count and never how much the others do: the weights of a step are those of all its
tokens, whatever is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .importance import sequence_sums

SAME_ENTROPY = 1e-5
"""Entropies that differ by less, in nats, are equal: the same reply is measured a little otherwise in another pack."""


@torch.no_grad()
def on_policy_mask(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, conversations: Tensor, threshold: float
) -> Tensor:
    """Leaves out what the policy would unlearn although it no longer says it (off-policy sequence mask of
    DeepSeek-V3.2, 2512.02556).

    A token with a negative advantage counts only where mean(log p_sampler - log p) over its conversation is at most
    the threshold.

    Args:
        logprobs: (N,) under the policy that is trained.
        sampled_logprobs: (N,) as the sampler recorded them.
        advantages: (N,).
        conversations: (N,) index of each token's conversation.
        threshold: in nats per token.

    Returns:
        (N,) bool: whether the token counts.
    """
    gap = sequence_sums(sampled_logprobs - logprobs, conversations)
    mean = gap / sequence_sums(torch.ones_like(gap), conversations)
    return (advantages >= 0) | (mean <= threshold)


@torch.no_grad()
def entropy_threshold(entropies: Tensor, share: float) -> float:
    """The entropy from which on a token is among the `share` of highest entropy (2506.01939).

    Args:
        entropies: (N,) of all trained tokens of the step; where the step was cut, a part of them gives another answer.
        share: of the tokens, in (0, 1].

    Returns:
        The (1 - share) quantile, between two entropies where it falls between them. `high_entropy_mask` takes it.
    """
    ordered = entropies.double().sort().values
    place = (1.0 - share) * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[below], ordered[above], place - below))


def high_entropy_mask(entropies: Tensor, threshold: float) -> Tensor:
    """(N,) bool: whether each token's entropy reaches the threshold, but for rounding."""
    return entropies.detach() >= threshold - SAME_ENTROPY
