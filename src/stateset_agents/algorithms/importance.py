"""Ratios between the policies that take part in one update: the one that is trained, the one at the start of the step,
and the one that sampled.

Invariant: every ratio is formed from differences of log-probabilities and is 1 where two policies agree.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Level = Literal["token", "sequence", "product"]
Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def sequence_sums(values: Tensor, conversations: Tensor | None) -> Tensor:
    """The sum over its conversation, at each token.

    Args:
        values: (N,).
        conversations: (N,) index of each token's conversation.

    Raises:
        ValueError: `conversations` is missing.
    """
    if conversations is None:
        raise ValueError("sums over conversations need the conversation of each token")
    count = int(conversations.max()) + 1 if len(conversations) else 0
    return values.new_zeros(count).index_add(0, conversations, values)[conversations]


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor, level: Level, conversations: Tensor | None) -> Tensor:
    """The ratio pi / pi_old at each token.

    Args:
        logprobs, old_logprobs: (N,).
        level: "token" of the token alone; "sequence" the geometric mean over the conversation's trained tokens (GSPO,
            2507.18071); "product" their product, the ratio of the conversation as a whole (RLOO, 2402.14740).
        conversations: (N,) index of each token's conversation; only "token" does without.

    Returns:
        (N,), with gradient. At the levels of conversations, the tokens of one have the same ratio.

    Raises:
        ValueError: `conversations` is missing.
    """
    difference = logprobs - old_logprobs
    if level != "token":
        total = sequence_sums(difference, conversations)
        if level == "sequence":
            total = total / sequence_sums(torch.ones_like(difference), conversations)
        difference = total
    return difference.exp()


@torch.no_grad()
def sampler_correction(
    old_logprobs: Tensor,
    sampled_logprobs: Tensor,
    kind: Correction,
    *,
    cap: float = 2.0,
    floor: float = 0.0,
    conversations: Tensor | None = None,
) -> Tensor | None:
    """Weight of each token against the difference between the learner's policy and the one that really sampled.

    Both hold the same weights, yet other kernels or another precision give other log-probs. The weight is
    pi_old / pi_sampler, of the token or of the conversation (a product: its spread grows with the length), bounded so
    that no token counts more than `cap` times (truncated importance sampling).

    Args:
        old_logprobs: (N,) by the learner at the start of the step.
        sampled_logprobs: (N,) as the sampler recorded them.
        kind: "..._truncate" moves weights outside [floor, cap] to the border, "..._mask" to 0: such tokens are left
            out; "none" corrects nothing.
        cap, floor: borders.
        conversations: (N,) index of each token's conversation, for the "sequence_..." kinds.

    Returns:
        (N,), or None for "none".

    Raises:
        ValueError: `conversations` is missing.
    """
    if kind == "none":
        return None
    level, _, how = kind.partition("_")
    weight = importance_ratio(old_logprobs, sampled_logprobs, "token" if level == "token" else "product", conversations)
    if how == "truncate":
        return weight.clamp(floor, cap)
    return torch.where((weight >= floor) & (weight <= cap), weight, 0.0)
