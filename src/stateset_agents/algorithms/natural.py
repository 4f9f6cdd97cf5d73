"""The natural gradient step of trust-region policy optimization (TRPO, 1502.05477).

Invariant: the step that is taken keeps the mean KL, as measured and not as predicted, inside the bound; where no part
of it does and improves the objective as well, none is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MatVec = Callable[[Tensor], Tensor]


def conjugate_gradient(product: MatVec, target: Tensor, *, iterations: int = 10, tolerance: float = 1e-10) -> Tensor:
    """Approximate solution x of F x = target for a positive definite F that is known by its products.

    Args:
        product: v -> F v.
        target: (n,).
        iterations: at most so many products; n of them solve exactly but for rounding.
        tolerance: squared norm of the residual, as a share of the target's, at which it ends early.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    size = residual.dot(residual)
    enough = tolerance * size
    for _ in range(iterations):
        if not bool(size > enough):
            break
        image = product(direction)
        curvature = direction.dot(image)
        if not bool(curvature > 0):  # rounding, or a direction that changes nothing
            break
        rate = size / curvature
        solution += rate * direction
        residual -= rate * image
        new_size = residual.dot(residual)
        direction = residual + (new_size / size) * direction
        size = new_size
    return solution


def natural_step(gradient: Tensor, product: MatVec, *, max_kl: float, iterations: int = 10) -> Tensor:
    """The step that raises the objective most, to first order, among those with KL at most `max_kl`, to second order.

    F^-1 g scaled by sqrt(2 max_kl / (g F^-1 g)).

    Args:
        gradient: (n,) of the objective that is to grow.
        product: v -> F v with F the Fisher matrix (the Hessian of the KL), damping included.
        max_kl: bound, in nats.
        iterations: of the conjugate gradient.

    Returns:
        (n,); zeros where the gradient is 0.
    """
    direction = conjugate_gradient(product, gradient, iterations=iterations)
    curvature = direction.dot(product(direction))
    if not bool(curvature > 0):
        return torch.zeros_like(gradient)
    return (2.0 * max_kl / curvature).sqrt() * direction


@dataclass(frozen=True)
class LineSearch:
    """What a line search found.

    Attributes:
        share: of the full step that was taken; 0 if none was.
        kl: mean KL of what was taken, in nats.
        gain: how much the objective grew.
    """

    share: float
    kl: float
    gain: float


def line_search(
    measure: Callable[[float], tuple[float, float]], *, max_kl: float, backtracks: int = 10, shrink: float = 0.5
) -> LineSearch:
    """Take the largest share of a step that improves the objective within the bound.

    Args:
        measure: share -> (objective less that of no step, mean KL), after moving there.
        max_kl: bound, in nats.
        backtracks: how often the step is made smaller.
        shrink: by which factor.

    Returns:
        What holds at the place where `measure` was called last; it is called with 0 when nothing was good enough.
    """
    share = 1.0
    for _ in range(backtracks + 1):
        gain, kl = measure(share)
        if gain > 0 and kl <= max_kl:  # False for NaN as well
            return LineSearch(share, kl, gain)
        share *= shrink
    measure(0.0)
    return LineSearch(0.0, 0.0, 0.0)
