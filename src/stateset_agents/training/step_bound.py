"""An update that changes the policy too much at once is shortened.

Invariant: what is left of it is the same update at a smaller learning rate, since AdamW's is proportional to the rate:
the weights lie on the line between where they were and where the update led. The optimizer's moments are those of the
gradient, whatever was left.

An update is too large if it changes the log-probs of the tokens that it learned from by more than half of the policy's
entropy, on average: more than the policy leaves open. A change of 0.2, which a clip of 0.2 allows to every token, is
too large for no policy. Both are measured at temperature 1, whatever the sampler's, on one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .precision import MasterWeights
from .ranks import Alone

ENTROPY_SHARE = 0.5
CLIP = 0.2
HALVINGS = 6
LEAST_LEFT = 0.5**HALVINGS
"""Share of an update that is left at least."""

Measure = Callable[[], tuple[Tensor, Tensor]]
"""Log-probs of some tokens and the entropies there, both (N,)."""


def most_change(entropy: float) -> float:
    """The largest mean size of a change of log-probs, for a policy of that entropy."""
    return max(CLIP, ENTROPY_SHARE * entropy)


class StepBound:
    """Made before an update, asked after it.

    Args:
        weights: the trained weights; a copy of them is kept.
        measure: the policy as it is.
        ranks: the processes that share the step, and decide together.
    """

    def __init__(self, weights: MasterWeights, measure: Measure, ranks: Alone) -> None:
        self._weights, self._measure, self._ranks = weights, measure, ranks
        self._origin = [master.detach().clone() for master in weights.masters]
        self._logprobs, entropies = measure()
        self._most = most_change(self._mean(entropies))

    @torch.no_grad()
    def shorten(self) -> float:
        """Halve the update until its change is small enough, at most `HALVINGS` times.

        Returns:
            The share of the update that was left.
        """
        share = 1.0
        for _ in range(HALVINGS):
            change = self._mean((self._measure()[0] - self._logprobs).abs())
            if change <= self._most:  # not so for NaN
                break
            share /= 2
            for master, origin in zip(self._weights.masters, self._origin, strict=True):
                master.lerp_(origin, 0.5)
            self._weights.publish()
        return share

    def _mean(self, values: Tensor) -> float:
        """Over all ranks."""
        sums, counts = zip(*self._ranks.gather(values.sum().item(), len(values)), strict=True)
        return float(sum(sums) / sum(counts))
