"""What the loss of one token or pair must know of all others of the step.

Invariant: it is settled over the whole step before its first gradient, so the cut into micro-batches cannot change it.
Where there are several micro-batches that costs a pass without gradient before each update; where the step is one, its
own pass tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
def observed(
    config: TrainingConfig, parts: Sequence[tuple[PackedBatch, Forward]], device: torch.device | None = None
) -> Tensor:
    """What some micro-batches have to say, a column for each token or pair.

    Columns of all micro-batches of a step, side by side in any order, are what `settled` takes.

    Args:
        config: algorithm settings.
        parts: micro-batches with what the models say about them.
        device: of the answer where there are no parts.

    Returns:
        (1, tokens) entropies, or (5, pairs): number in the step, chosen, rejected, and both of the reference; float64.
    """
    if config.recipe.kind != "preference":
        none = torch.zeros(1, 0, dtype=torch.float64, device=device)
        return torch.cat([none, *(forward.entropies.double()[None] for _, forward in parts)], dim=1)
    columns = [torch.zeros(5, 0, dtype=torch.float64, device=device)]
    for batch, forward in parts:
        assert forward.reference is not None  # noqa: S101 - preferences always have one
        pairs = pairs_of(batch, forward.logprobs, forward.reference, tail=config.preference_tail)
        sums = (pairs.chosen, pairs.rejected, pairs.reference_chosen, pairs.reference_rejected)
        columns.append(torch.stack([pairs.numbers.double(), *(one.double() for one in sums)]))
    return torch.cat(columns, dim=1)


@torch.no_grad()
def settled(config: TrainingConfig, columns: Tensor) -> Comparison:
    """The comparison of a step, from all that its micro-batches `observed`."""
    if config.recipe.kind == "preference":
        numbers, *sums = columns
        ordered = (one[numbers.argsort()] for one in sums)
        return Comparison(matches=matches_of(*ordered, paired=config.preference_loss == "aot"))
    threshold = entropy_threshold(columns[0], config.top_entropy_share)
    return Comparison(threshold, int(high_entropy_mask(columns[0], threshold).sum()))
