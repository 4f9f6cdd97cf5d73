"""Advantages from rewards alone: what a conversation is compared with.

Invariant: rewards that are all equal yield exactly zero advantage, never noise divided by epsilon. Rewards are sums of
floats, so 0.1 + 0.2 equals 0.3 here: differences of the size of rounding are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

SAME_REWARD = 1e-9
"""Rewards that differ by less, as a share of the largest of them or of 1, are equal. Coarser for float32 and below."""

Scale = Literal["std", "batch", "none"]


def group_relative(rewards: Tensor, *, scale: Scale = "std", eps: float = 1e-4) -> Tensor:
    """Advantage of each sample over its own group.

    Args:
        rewards: (groups, samples), any float dtype; NaN marks a sample that could not be scored.
        scale: "std" divides by the group's Bessel-corrected deviation plus `eps` (DeepSeekMath, 2402.03300);
            "batch" by that of all rewards (REINFORCE++, 2501.03262); "none" leaves the difference as it is (Dr. GRPO,
            2503.20783).
        eps: added to the deviation.

    Returns:
        (groups, samples); NaN samples get 0 and do not enter the mean.

    Raises:
        ValueError: a group with fewer than two scored samples, or an infinite reward.
    """
    scored, count, values = _scored(rewards)
    mean = values.sum(1, keepdim=True) / count
    difference = torch.where(_all_equal(rewards), 0.0, torch.where(scored, rewards - mean, 0.0))
    if scale == "none":
        return difference
    if scale == "batch":
        return difference / (_deviation(rewards[scored]) + eps)
    deviation = (difference.square().sum(1, keepdim=True) / (count - 1)).sqrt()
    return difference / (deviation + eps)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Reward less the mean of the other samples of the group (RLOO, 2402.14740).

    Args:
        rewards: (groups, samples); NaN marks a sample that could not be scored.

    Returns:
        (groups, samples); NaN samples get 0 and enter no mean.

    Raises:
        ValueError: as in `group_relative`.
    """
    scored, count, values = _scored(rewards)
    others = (values.sum(1, keepdim=True) - values) / (count - 1)
    difference = torch.where(scored, rewards - others, 0.0)
    return torch.where(_all_equal(rewards), 0.0, difference)


def above_batch(rewards: Tensor) -> Tensor:
    """Reward less the mean of the step (REINFORCE with a baseline; Williams, 1992).

    Args:
        rewards: (samples,), all scored.
    """
    if bool(_all_equal(rewards[None])):
        return torch.zeros_like(rewards)
    return rewards - rewards.mean()


def standardized(advantages: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Less their mean, divided by their Bessel-corrected deviation plus `eps`; zeros for fewer than two.

    Args:
        advantages: (n,).
    """
    if len(advantages) < 2 or bool(_all_equal(advantages[None])):
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (_deviation(advantages) + eps)


def normalize_then_sum(rewards: Tensor, weights: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Several rewards, each compared within its group by itself, then weighed (GDPO, 2601.05242).

    The sum of rewards lets the one with the widest spread decide; here each has the same voice before its weight.

    Args:
        rewards: (groups, samples, rewards); NaN in all rewards of a sample that could not be scored.
        weights: (rewards,).
        eps: added to deviations.

    Returns:
        (groups, samples), standardized over the scored samples of the step; the others get 0.

    Raises:
        ValueError: a group with fewer than two scored samples.
    """
    each = torch.stack([group_relative(one, eps=eps) for one in rewards.unbind(-1)], dim=-1)
    scored = ~rewards[:, :, 0].isnan()
    advantages = torch.zeros_like(rewards[:, :, 0])
    advantages[scored] = standardized((each * weights).sum(-1)[scored], eps=eps)
    return advantages


def turn_credit(
    conversation: Tensor, returns: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], *, scale: bool = True
) -> list[list[float]]:
    """Advantages of turns that keep, token for token, the mean advantage of their conversation.

    A turn is compared with the same turn of the group's other conversations, by what was earned from it onwards. Used
    as it is, such a difference has a hidden bonus for length: a conversation with more turns has more of them, and late
    turns are compared only with conversations that lasted as long. So only the difference of a turn from the token mean
    of its own conversation is added to the conversation's advantage.

    Args:
        conversation: (samples,) advantage of each conversation of one group.
        returns: of each conversation, what was earned from each turn on, discounted.
        lengths: of each conversation, the trained tokens of each turn. A turn without any is compared with nothing.
        scale: divide what is added by its deviation over the group's turns, plus 1e-4.

    Returns:
        Advantages like `returns`. For each conversation the mean over its tokens is its own advantage.
    """
    most = max((len(turns) for turns in returns), default=0)
    both = [list(zip(turns, tokens, strict=True)) for turns, tokens in zip(returns, lengths, strict=True)]
    held = [[turns[turn][0] for turns in both if turn < len(turns) and turns[turn][1]] for turn in range(most)]
    means = [sum(values) / len(values) if values else 0.0 for values in held]
    differences = [[value - means[turn] if n else 0.0 for turn, (value, n) in enumerate(turns)] for turns in both]
    pairs = [
        pair for above, tokens in zip(differences, lengths, strict=True) for pair in zip(above, tokens, strict=True)
    ]
    every = torch.tensor([difference for difference, tokens in pairs if tokens], dtype=torch.float64)
    divisor = float(_deviation(every)) + 1e-4 if scale and len(every) > 1 else 1.0
    credited = []
    for own, above, tokens in zip(conversation.tolist(), differences, lengths, strict=True):
        above = [value / divisor for value in above]
        total = sum(tokens)
        middle = sum(n * difference for n, difference in zip(tokens, above, strict=True)) / total if total else 0.0
        credited.append([own + difference - middle for difference in above])
    return credited


def _scored(rewards: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scored = ~rewards.isnan()
    count = scored.sum(1, keepdim=True)
    if bool((count < 2).any()):
        raise ValueError("each group needs at least two scored samples: a baseline of one sample is the sample itself")
    if bool(rewards.isinf().any()):
        raise ValueError("rewards must be finite (or NaN for a sample that could not be scored)")
    return scored, count, torch.where(scored, rewards, 0.0)


def _all_equal(rewards: Tensor) -> Tensor:
    """(groups, 1): whether the scored samples of a group differ by no more than rounding."""
    scored = ~rewards.isnan()
    lowest = torch.where(scored, rewards, torch.inf).amin(1, keepdim=True)
    highest = torch.where(scored, rewards, -torch.inf).amax(1, keepdim=True)
    largest = torch.where(scored, rewards, 0.0).abs().amax(1, keepdim=True)
    rounding = max(SAME_REWARD, 16 * torch.finfo(rewards.dtype).eps)
    return highest - lowest <= rounding * largest.clamp(min=1.0)


def _deviation(values: Tensor) -> Tensor:
    return values.std(correction=1)
