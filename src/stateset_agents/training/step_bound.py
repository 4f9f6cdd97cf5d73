"""An update that changes the policy too much at once is shortened.

Invariant: what is left of it is the same update at a smaller learning rate, since AdamW's is proportional to the rate:
the weights lie on the line between where they were and where the update led. The optimizer's moments are those of the
gradient, whatever was left.

An update is too large if the KL of the policy before from the policy after it is more than `MOST_KL` nats a token, on
average over the tokens that it learned from. It is measured over the whole vocabulary, since a policy is ruined by what
it no longer says as well, at temperature 1, whatever the sampler's, and on one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .precision import MasterWeights
from .ranks import Alone

MOST_KL = 0.1
"""Nats a token: ten times the bound that TRPO keeps in each step, and twice the largest that PPO is usually stopped
at."""
HALVINGS = 10
LEAST_LEFT = 0.5**HALVINGS
"""Share of an update that is left at least."""

Measure = Callable[[], tuple[float, int]]
"""The KL of the policy before from what it is, summed over some tokens, and how many these are."""


class StepBound:
    """Made before an update, asked after it.

    Args:
        weights: the trained weights; a copy of them is kept.
        measure: the change of the policy.
        ranks: the processes that share the step, and decide together.
    """

    def __init__(self, weights: MasterWeights, measure: Measure, ranks: Alone) -> None:
        self._weights, self._measure, self._ranks = weights, measure, ranks
        self._origin = [master.detach().clone() for master in weights.masters]

    @torch.no_grad()
    def shorten(self) -> float:
        """Halve the update until its change is small enough, at most `HALVINGS` times.

        Returns:
            The share of the update that was left.
        """
        share = 1.0
        for _ in range(HALVINGS):
            sums, counts = zip(*self._ranks.gather(*self._measure()), strict=True)
            if sum(sums) <= MOST_KL * sum(counts):  # not so for NaN
                break
            share /= 2
            for master, origin in zip(self._weights.masters, self._origin, strict=True):
                master.lerp_(origin, 0.5)
            self._weights.publish()
        return share
