"""Group-relative advantages.

Invariant: a group whose rewards are all equal yields exactly zero advantage, never noise divided by epsilon. Rewards
are sums of floats, so 0.1 + 0.2 equals 0.3 here: differences of the size of rounding are none.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SAME_REWARD = 1e-9
"""Rewards that differ by less, as a share of the largest of them or of 1, are equal. Coarser for float32 and below."""


def group_relative(rewards: Tensor, *, scale: Literal["std", "none"] = "std", eps: float = 1e-4) -> Tensor:
    """Advantage of each sample over its own group.

    Args:
        rewards: (groups, samples), any float dtype; NaN marks a sample that could not be scored.
        scale: "std" divides by the group's Bessel-corrected deviation plus `eps` (DeepSeekMath, 2402.03300);
            "none" leaves the difference as it is (Dr. GRPO, 2503.20783).
        eps: added to the deviation.

    Returns:
        (groups, samples); NaN samples get 0 and do not enter the mean.

    Raises:
        ValueError: a group with fewer than two scored samples, or an infinite reward.
    """
    scored = ~rewards.isnan()
    count = scored.sum(1, keepdim=True)
    if bool((count < 2).any()):
        raise ValueError("each group needs at least two scored samples: a baseline of one sample is the sample itself")
    if bool(rewards.isinf().any()):
        raise ValueError("rewards must be finite (or NaN for a sample that could not be scored)")
    values = torch.where(scored, rewards, 0.0)
    mean = values.sum(1, keepdim=True) / count
    difference = torch.where(scored, rewards - mean, 0.0)
    lowest = torch.where(scored, rewards, torch.inf).amin(1, keepdim=True)
    highest = torch.where(scored, rewards, -torch.inf).amax(1, keepdim=True)
    rounding = max(SAME_REWARD, 16 * torch.finfo(rewards.dtype).eps)
    equal = highest - lowest <= rounding * values.abs().amax(1, keepdim=True).clamp(min=1.0)
    difference = torch.where(equal, 0.0, difference)
    if scale == "none":
        return difference
    deviation = (difference.square().sum(1, keepdim=True) / (count - 1)).sqrt()
    return difference / (deviation + eps)
