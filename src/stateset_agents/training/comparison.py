"""What the loss of one token or pair must know of all others of the step.

Invariant: it is settled over the whole step before its first gradient, so the cut into micro-batches cannot change it.
Where there are several micro-batches that costs a pass without gradient before each update; where the step is one, its
own pass tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..algorithms import Matches, entropy_threshold, high_entropy_mask, matches_of
from ..algorithms.preferences import TRANSPORTED
from ..config.training import TrainingConfig
from .forward import Forward
from .packing import PackedBatch
from .pairs import pairs_of


@dataclass(frozen=True)
class Comparison:
    """Of one step, as the policy is before an update.

    Attributes:
        entropy_threshold: tokens below it are left out of the policy's term.
        kept_tokens: those that are not.
        matches: what each pair is compared with, in the order of their numbers; None without pairs.
    """

    entropy_threshold: float = 0.0
    kept_tokens: int = 0
    matches: Matches | None = None


def compares(config: TrainingConfig) -> bool:
    """Whether the loss needs a `Comparison`."""
    if config.recipe.kind == "preference":
        return config.preference_loss in TRANSPORTED
    return config.top_entropy_share < 1.0


@torch.no_grad()
def compare(config: TrainingConfig, parts: Sequence[tuple[PackedBatch, Forward]]) -> Comparison | None:
    """Settle it for a step.

    Args:
        config: algorithm settings.
        parts: every micro-batch of the step with what the models say about it.

    Returns:
        None where the loss needs none.
    """
    if not compares(config):
        return None
    if config.recipe.kind == "preference":
        return Comparison(matches=_matches(config, parts))
    entropies = torch.cat([forward.entropies.detach() for _, forward in parts])
    threshold = entropy_threshold(entropies, config.top_entropy_share)
    return Comparison(threshold, int(high_entropy_mask(entropies, threshold).sum()))


def _matches(config: TrainingConfig, parts: Sequence[tuple[PackedBatch, Forward]]) -> Matches:
    found = []
    for batch, forward in parts:
        assert forward.reference is not None  # noqa: S101 - preferences always have one
        found.append(pairs_of(batch, forward.logprobs, forward.reference, tail=config.preference_tail))
    order = torch.cat([pairs.numbers for pairs in found]).argsort()
    columns = (
        torch.cat([getattr(pairs, name) for pairs in found])[order]
        for name in ("chosen", "rejected", "reference_chosen", "reference_rejected")
    )
    return matches_of(*columns, paired=config.preference_loss == "aot")
