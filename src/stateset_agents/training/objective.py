"""What a micro-batch contributes to the loss, by the kind of algorithm.

Invariant: contributions of micro-batches add up to the loss of the step, however it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..algorithms import high_entropy_mask, on_policy_mask, policy_loss, preference_loss, sampler_correction, value_loss
from ..config.training import TrainingConfig
from .comparison import Comparison, compares, observed, settled
from .forward import Forward
from .packing import PackedBatch, Sample
from .pairs import pairs_of


@dataclass(frozen=True)
class Contribution:
    """Of one micro-batch.

    Attributes:
        loss: scalar with gradient.
        ratio, clipped: of each token; None for algorithms without ratios.
        kl: of each token from the reference; None without one.
        value_error: weighted squared error of the value head, summed; None without one.
        margins: of each pair; None for algorithms without pairs.
        kept: of each token, whether a mask left it in the policy's term; None where nothing masks.
    """

    loss: Tensor
    ratio: Tensor | None = None
    clipped: Tensor | None = None
    kl: Tensor | None = None
    value_error: float | None = None
    margins: Tensor | None = None
    kept: Tensor | None = None


def counted_tokens(config: TrainingConfig, samples: Sequence[Sample]) -> int:
    """Tokens of a step that means are over: the trained ones, or of pairs those of the chosen conversations."""
    pairs = config.recipe.kind == "preference"
    return sum(sample.row.trained_tokens for sample in samples if not pairs or sample.advantage == 1.0)


def contribution(
    config: TrainingConfig, batch: PackedBatch, forward: Forward, tokens: int, comparison: Comparison | None = None
) -> Contribution:
    """The loss of a micro-batch.

    Args:
        config: algorithm settings.
        batch: rows with their annotations.
        forward: what the models say about them.
        tokens: of the whole step, see `counted_tokens`.
        comparison: what the loss must know of all of the step; None where it needs nothing, or the batch is the step.
    """
    kind = config.recipe.kind
    if comparison is None and compares(config):
        comparison = settled(config, observed(config, [(batch, forward)]))
    if kind == "preference":
        return _of_pairs(config, batch, forward, tokens, comparison)
    if kind == "likelihood":
        return Contribution(-(batch.weights * forward.logprobs).sum())
    return _of_policy(config, batch, forward, tokens, comparison)


def _of_policy(
    config: TrainingConfig, batch: PackedBatch, forward: Forward, tokens: int, comparison: Comparison | None
) -> Contribution:
    uncertain = None if comparison is None else high_entropy_mask(forward.entropies, comparison.entropy_threshold)
    kept = uncertain
    if config.off_policy_threshold is not None:
        kept = on_policy_mask(
            forward.logprobs,
            batch.sampled_logprobs,
            batch.advantages,
            batch.conversations,
            config.off_policy_threshold,
        )
        kept = kept if uncertain is None else kept & uncertain
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
            floor=config.sampler_correction_floor,
            conversations=batch.conversations,
        ),
        kept=kept,
        beta=config.beta if forward.reference is not None else 0.0,
        reference=forward.reference,
        kl_estimator="k3" if config.kl_estimator == "k1" else config.kl_estimator,
        kl_correction=config.kl_correction,
    )
    loss, error = result.loss, None
    if config.entropy_coef:
        if comparison is None or uncertain is None:
            bonus = forward.entropies.sum() / tokens
        else:
            bonus = forward.entropies[uncertain].sum() / comparison.kept_tokens
        loss = loss - config.entropy_coef * bonus
    if forward.values is not None:
        fitted = value_loss(forward.values, batch.values, batch.returns, batch.weights, clip=config.value_clip)
        loss = loss + config.value_coef * fitted
        error = fitted.item()
    return Contribution(loss, result.ratio, result.clipped, result.kl, error, kept=kept)


def _of_pairs(
    config: TrainingConfig, batch: PackedBatch, forward: Forward, tokens: int, comparison: Comparison | None
) -> Contribution:
    """Rows come in bundles of a chosen and a rejected conversation; see `preference_samples`."""
    assert forward.reference is not None  # noqa: S101 - preferences always have one
    pairs = pairs_of(batch, forward.logprobs, forward.reference, tail=config.preference_tail)
    matches = None if comparison is None else comparison.matches
    weight = forward.logprobs.new_zeros(len(pairs.numbers)).index_copy(0, pairs.places, batch.weights)
    result = preference_loss(
        pairs.chosen,
        pairs.rejected,
        pairs.reference_chosen,
        pairs.reference_rejected,
        kind=config.preference_loss,
        beta=config.beta,
        lengths=pairs.lengths,
        label_smoothing=config.label_smoothing,
        divergence=config.preference_divergence,
        alpha=config.preference_alpha,
        matches=None if matches is None else matches.of(pairs.numbers),
    )
    loss = (weight * result.losses).sum()
    if config.preference_sft_weight:
        loss = loss - config.preference_sft_weight * forward.logprobs[batch.advantages > 0].sum() / tokens
    return Contribution(loss, kl=forward.logprobs.detach() - forward.reference, margins=result.margins)
