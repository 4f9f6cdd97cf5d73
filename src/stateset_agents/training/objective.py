"""What a micro-batch contributes to the loss, by the kind of algorithm.

Invariant: contributions of micro-batches add up to the loss of the step, however it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..algorithms import policy_loss, preference_loss, sampler_correction, value_loss
from ..config.training import TrainingConfig
from .packing import PackedBatch


@dataclass(frozen=True)
class Forward:
    """What the models say about a batch's trained tokens, each (N,).

    Attributes:
        logprobs, entropies: of the policy, with gradient.
        old: log-probs at the start of the step.
        values: of the value head, with gradient; None without one.
        reference: log-probs of the reference; None where the loss has none.
    """

    logprobs: Tensor
    entropies: Tensor
    old: Tensor
    values: Tensor | None = None
    reference: Tensor | None = None


@dataclass(frozen=True)
class Contribution:
    """Of one micro-batch.

    Attributes:
        loss: scalar with gradient.
        ratio, clipped: of each token; None for algorithms without ratios.
        kl: of each token from the reference; None without one.
        value_error: weighted squared error of the value head, summed; None without one.
        margins: of each pair; None for algorithms without pairs.
    """

    loss: Tensor
    ratio: Tensor | None = None
    clipped: Tensor | None = None
    kl: Tensor | None = None
    value_error: float | None = None
    margins: Tensor | None = None


def contribution(config: TrainingConfig, batch: PackedBatch, forward: Forward, tokens: int) -> Contribution:
    """The loss of a micro-batch.

    Args:
        config: algorithm settings.
        batch: rows with their annotations.
        forward: what the models say about them.
        tokens: trained tokens of the whole step.
    """
    kind = config.recipe.kind
    if kind == "preference":
        return _of_pairs(config, batch, forward)
    if kind == "likelihood":
        return Contribution(-(batch.weights * forward.logprobs).sum())
    return _of_policy(config, batch, forward, tokens)


def _of_policy(config: TrainingConfig, batch: PackedBatch, forward: Forward, tokens: int) -> Contribution:
    result = policy_loss(
        forward.logprobs,
        forward.old,
        batch.advantages,
        batch.weights,
        surrogate=config.recipe.surrogate,
        level=config.importance_level,
        conversations=batch.conversations,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        ratio_cap=config.ratio_cap,
        correction=sampler_correction(
            forward.old,
            batch.sampled_logprobs,
            config.sampler_correction,
            cap=config.sampler_correction_cap,
            conversations=batch.conversations,
        ),
        beta=config.beta if forward.reference is not None else 0.0,
        reference=forward.reference,
        kl_estimator="k3" if config.kl_estimator == "k1" else config.kl_estimator,
        kl_correction=config.kl_correction,
    )
    loss, error = result.loss, None
    if config.entropy_coef:
        loss = loss - config.entropy_coef * forward.entropies.sum() / tokens
    if forward.values is not None:
        fitted = value_loss(forward.values, batch.values, batch.returns, batch.weights, clip=config.value_clip)
        loss = loss + config.value_coef * fitted
        error = fitted.item()
    return Contribution(loss, result.ratio, result.clipped, result.kl, error)


def _of_pairs(config: TrainingConfig, batch: PackedBatch, forward: Forward) -> Contribution:
    """Rows come in bundles of a chosen and a rejected conversation; see `preference_samples`."""
    assert forward.reference is not None  # noqa: S101 - preferences always have one
    pairs = batch.bundles.unique()  # sorted
    place = torch.searchsorted(pairs, batch.bundles)
    weight = forward.logprobs.new_zeros(len(pairs)).index_copy(0, place, batch.weights)

    def of(side: Tensor, numbers: Tensor) -> Tensor:
        return numbers.new_zeros(len(pairs)).index_add(0, place, torch.where(side, numbers, 0.0))

    chosen, rejected = batch.advantages > 0, batch.advantages < 0
    ones = torch.ones_like(forward.logprobs)
    result = preference_loss(
        of(chosen, forward.logprobs),
        of(rejected, forward.logprobs),
        of(chosen, forward.reference),
        of(rejected, forward.reference),
        kind=config.preference_loss,
        beta=config.beta,
        lengths=(of(chosen, ones), of(rejected, ones)),
    )
    return Contribution(
        (weight * result.losses).sum(), kl=forward.logprobs.detach() - forward.reference, margins=result.margins
    )
