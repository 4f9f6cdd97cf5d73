"""Advantages from a value function, and the loss that fits it.

Invariant: what a conversation earns after its end is 0. A state's value never enters its own target through the policy
gradient: targets are constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generalized_advantages(
    rewards: Sequence[float], values: Sequence[float], *, discount: float = 1.0, decay: float = 0.95
) -> tuple[list[float], list[float]]:
    """Generalized advantage estimation over the actions of one conversation (1506.02438).

    delta_t = r_t + discount V_{t+1} - V_t and A_t = delta_t + discount decay A_{t+1}.

    Args:
        rewards: what each action earned; a conversation's score stands at its last action.
        values: estimate before each action.
        discount: gamma, in (0, 1].
        decay: lambda, in [0, 1]: 0 trusts the values, 1 the rewards alone.

    Returns:
        Advantages, and the returns (advantage + value) that the values are fitted to.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(rewards) != len(values):
        raise ValueError(f"{len(rewards)} rewards but {len(values)} values")
    advantages = [0.0] * len(rewards)
    ahead, following = 0.0, 0.0
    for place in reversed(range(len(rewards))):
        delta = rewards[place] + discount * following - values[place]
        ahead = delta + discount * decay * ahead
        advantages[place] = ahead
        following = values[place]
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor, *, clip: float | None = 0.2
) -> Tensor:
    """Half the weighted squared error, the larger of the plain and the clipped one.

    Args:
        values: (N,) predictions, with gradient.
        old_values: (N,) at the start of the step.
        returns: (N,) targets.
        weights: (N,).
        clip: the prediction may move this far from the old one (the value clipping of PPO's implementations,
            2005.12729); None does not clip.

    Returns:
        Scalar; sums over micro-batches to the loss of the step.
    """
    error = (values - returns).square()
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns).square())
    return 0.5 * (weights * error).sum()
