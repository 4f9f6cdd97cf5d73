"""Tokens of a micro-batch to pairs of answers.

Invariant: both sides of a pair are in the same micro-batch (`bundle`), so its sums are whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import PackedBatch


@dataclass(frozen=True)
class Pairs:
    """The pairs of a micro-batch.

    Attributes:
        numbers: (pairs,) in the step.
        places: (N,) pair of each token, as an index into `numbers`.
        chosen, rejected, reference_chosen, reference_rejected: (pairs,) log-probs, summed over the answer's tokens.
        lengths: tokens of the chosen and of the rejected answers, (pairs,) each.
    """

    numbers: Tensor
    places: Tensor
    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    lengths: tuple[Tensor, Tensor]


def pairs_of(batch: PackedBatch, logprobs: Tensor, reference: Tensor, *, tail: float = 1.0) -> Pairs:
    """Sums over the answers of each pair.

    Args:
        batch: rows in bundles of a chosen and a rejected conversation; see `preference_samples`.
        logprobs: (N,) of the policy.
        reference: (N,) of the reference.
        tail: weight of the tokens that an answer has beyond the length of the other (LD-DPO, 2409.06411).
    """
    numbers, places = batch.bundles.unique(return_inverse=True)  # sorted
    chosen = batch.advantages > 0

    def sums(side: Tensor, values: Tensor) -> Tensor:
        return values.new_zeros(len(numbers)).index_add(0, places, torch.where(side, values, 0.0))

    lengths = (sums(chosen, torch.ones_like(reference)), sums(~chosen, torch.ones_like(reference)))
    if tail != 1.0:
        shared = torch.minimum(*lengths)[places]
        inside = _positions(2 * places + chosen, batch.owners) < shared
        factor = torch.where(inside, torch.ones_like(logprobs), tail)
        logprobs, reference = factor * logprobs, factor * reference
    return Pairs(
        numbers,
        places,
        sums(chosen, logprobs),
        sums(~chosen, logprobs),
        sums(chosen, reference),
        sums(~chosen, reference),
        lengths,
    )


def _positions(answers: Tensor, owners: Tensor) -> Tensor:
    """(N,) how many tokens of its answer come before each token; rows of an answer follow each other."""
    by_row = owners.argsort(stable=True)
    order = by_row[answers[by_row].argsort(stable=True)]
    counts = answers.bincount()
    begins = counts.cumsum(0) - counts
    positions = torch.empty_like(answers)
    positions[order] = torch.arange(len(answers), device=answers.device) - begins[answers[order]]
    return positions
