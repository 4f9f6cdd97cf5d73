"""Distributional preferences: every rank of one side above the same rank of the other (AOT, 2406.05882).

Invariant: which values face each other is settled over all pairs of a step. Given that, the loss is a sum over pairs
whose gradient is that of the loss over all of them, however the step is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Matches:
    """Constants that pairs are compared with, each (pairs,).

    Attributes:
        below: of each pair's upper value, the lower value of the same rank.
        above: of each pair's lower value, the upper value of the same rank.
    """

    below: Tensor
    above: Tensor

    def of(self, places: Tensor) -> Matches:
        """Those of some pairs, by their number in the step."""
        return Matches(self.below[places], self.above[places])


@torch.no_grad()
def matches_of(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, paired: bool
) -> Matches:
    """What faces what, over all pairs of a step.

    Args:
        chosen, rejected, reference_chosen, reference_rejected: as in `preference_loss`, of every pair of the step.
        paired: differences of pairs, the policy's above the reference's; else answers, the chosen above the rejected.
    """
    if paired:
        upper, lower = chosen - rejected, reference_chosen - reference_rejected
    else:
        upper, lower = chosen - reference_chosen, rejected - reference_rejected
    return Matches(_same_rank(upper, lower), _same_rank(lower, upper))


def transported(upper: Tensor, lower: Tensor, matches: Matches, penalty: Callable[[Tensor], Tensor]) -> Tensor:
    """The penalty of each difference between values of the same rank.

    Each difference has two pairs in it. Its value is counted at the pair of its upper value; its gradient reaches each
    pair where the pair is, since the pairs may be in different micro-batches.

    Args:
        upper, lower: (pairs,) with gradient.
        matches: of the same pairs.
        penalty: of a difference, elementwise.

    Returns:
        (pairs,) whose sum over all pairs of a step is the sum of the penalties.
    """
    at_lower = penalty(matches.above - lower)
    return penalty(upper - matches.below) + at_lower - at_lower.detach()


def _same_rank(values: Tensor, others: Tensor) -> Tensor:
    return others.sort().values[values.argsort(stable=True).argsort()]
