"""A linear reward from pairs of a better and a worse conversation.

Invariant: the fit is a function of its arguments alone. The loss is convex, the descent begins at 0, the curvature
decides its stride, and no random number is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class LinearFit:
    """Where the descent ended.

    Attributes:
        weight: (width,).
        steps: that led there, those of the patience not counted; 0 where no step explained the watched pairs better
            than a toss of a coin.
        loss: of the pairs that were fitted, without the penalty.
        watched_loss: of the pairs that said when to stop.
    """

    weight: Tensor
    steps: int
    loss: float
    watched_loss: float


def bradley_terry(weight: Tensor, differences: Tensor, l2: float = 0.0) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a linear reward r(x) = weight . x under the model of Bradley and Terry (1952).

    The better one is preferred with probability sigmoid(r_chosen - r_rejected); the loss is the mean over pairs of
    -log of it (InstructGPT, 2203.02155) and l2 / 2 x |weight|^2.

    Args:
        weight: (width,).
        differences: (pairs, width), chosen less rejected.
        l2: weight of the penalty.
    """
    margins = differences @ weight
    loss = softplus(-margins).mean() + 0.5 * l2 * weight @ weight
    gradient = l2 * weight - torch.sigmoid(-margins) @ differences / len(differences)
    return loss, gradient


def fit_linear(
    differences: Tensor, watched: Tensor, *, l2: float, max_steps: int = 2000, patience: int = 100
) -> LinearFit:
    """Descend from 0 (Nesterov 1983) until the watched pairs are no longer explained better.

    Args:
        differences: (pairs, width) to fit, float64; not all 0.
        watched: (pairs, width) that say when to stop.
        l2: weight of the penalty; above 0, so that pairs which can all be told apart have a finite answer.
        max_steps: at most.
        patience: steps without a lower watched loss after which it stops.

    Returns:
        The weights with the lowest watched loss on the way.
    """
    curvature = torch.linalg.matrix_norm(differences, ord=2).square() / (4 * len(differences)) + l2
    stride = 0.1 / curvature  # 1.0 would still be safe, but steps over the place where to stop
    weight = torch.zeros_like(differences[0])
    ahead, momentum = weight, 1.0
    best, best_loss, at = weight, math.log(2.0), 0
    for step in range(1, max_steps + 1):
        moved = ahead - bradley_terry(ahead, differences, l2)[1] * stride
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        weight, momentum = moved, following
        loss = bradley_terry(weight, watched)[0].item()
        if loss < best_loss - 1e-9:
            best, best_loss, at = weight, loss, step
        elif step - at >= patience:
            break
    return LinearFit(best, at, bradley_terry(best, differences)[0].item(), best_loss)
