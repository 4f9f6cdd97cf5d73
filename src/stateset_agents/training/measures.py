"""What a step measures.

Invariant: measuring changes nothing: no tensor that takes part in the update is written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .forward import Forward
from .objective import Contribution
from .packing import PackedBatch

if TYPE_CHECKING:
    from ..config.training import TrainingConfig


@dataclass
class StepMetrics:
    """What one optimizer step measured. Means are over trained tokens; None where there were none to measure.

    Attributes:
        loss, kl, entropy: of the policy at the start of the step; `kl` is None without a reference.
        grad_norm: of the last update, before clipping.
        clip_fraction, ratio_mean: over the passes after the first update, where there are any; the first pass has
            ratio 1 by definition.
        masked_fraction: share of the tokens that `off_policy_threshold` or `top_entropy_share` left out of the policy's
            term, over the same passes; None where nothing masks.
        mismatch_mean, mismatch_size, mismatch_max: log-prob that the sampler recorded less the learner's: its mean, the
            mean of its size, and its largest size.
        value_loss: of the value head, at the start of the step.
        preference_accuracy: share of pairs that the policy, against its reference, agrees with.
        step_kl, step_share: mean KL that a natural step took, and how much of it the line search left.
        trained_tokens: tokens with an advantage (or a KL term).
        forwarded_tokens: tokens that one pass puts through the model.
        unique_tokens: the fewest that it could: each prompt of a group once.
        learning_rate: of the step.
        temperature: of the log-probs, the sampler's and the learner's.
        updated: whether there was a difference in reward to learn from.
    """

    loss: float = 0.0
    kl: float | None = None
    entropy: float | None = None
    grad_norm: float = 0.0
    clip_fraction: float | None = None
    ratio_mean: float | None = None
    masked_fraction: float | None = None
    mismatch_mean: float | None = None
    mismatch_size: float | None = None
    mismatch_max: float | None = None
    value_loss: float | None = None
    preference_accuracy: float | None = None
    step_kl: float | None = None
    step_share: float | None = None
    trained_tokens: int = 0
    forwarded_tokens: int = 0
    unique_tokens: int = 0
    learning_rate: float = 0.0
    temperature: float | None = None
    updated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Everything by name."""
        return dict(vars(self))

    def take(self, passes: Sequence[Pass], tokens: int, config: TrainingConfig) -> None:
        """Take note of the passes of a step that made an update.

        Args:
            passes: one before each update.
            tokens: trained ones.
            config: says what there was to measure.
        """
        self.updated, self.trained_tokens = True, tokens
        first, later = passes[0], passes[1:] or passes
        self.loss, self.entropy, self.value_loss = first.loss, first.entropy / tokens, first.value_error
        if config.data_file is None:  # what was recorded was sampled by nobody: it has no KL, no mismatch
            self.kl = None if first.kl is None else first.kl / tokens
            self.mismatch_mean, self.mismatch_max = first.mismatch / tokens, first.mismatch_max
            self.mismatch_size = first.mismatch_size / tokens
        if first.pairs:
            self.preference_accuracy = first.agreed / first.pairs
        if config.recipe.kind == "policy":
            self.clip_fraction = sum(one.clipped for one in later) / (tokens * len(later))
            self.ratio_mean = sum(one.ratio for one in later) / (tokens * len(later))
            if first.masked is not None:
                self.masked_fraction = sum(one.masked or 0.0 for one in later) / (tokens * len(later))


@dataclass
class Pass:
    """Sums over the trained tokens of one pass through a step's conversations."""

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    mismatch: float = 0.0
    mismatch_size: float = 0.0
    mismatch_max: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0
    masked: float | None = None
    value_error: float | None = None
    pairs: float = 0
    agreed: float = 0

    def add(self, batch: PackedBatch, forward: Forward, result: Contribution) -> None:
        """Take note of a micro-batch."""
        gap = batch.sampled_logprobs - forward.logprobs.detach()
        self.loss += result.loss.item()
        self.entropy += forward.entropies.detach().sum().item()
        self.mismatch += gap.sum().item()
        self.mismatch_size += gap.abs().sum().item()
        self.mismatch_max = max(self.mismatch_max, gap.abs().max().item())
        if result.clipped is not None and result.ratio is not None:
            self.clipped += result.clipped.sum().item()
            self.ratio += result.ratio.sum().item()
        if result.kept is not None:
            self.masked = (self.masked or 0.0) + (~result.kept).sum().item()
        if result.kl is not None:
            self.kl = (self.kl or 0.0) + result.kl.sum().item()
        if result.value_error is not None:
            self.value_error = (self.value_error or 0.0) + result.value_error
        if result.margins is not None:
            self.pairs += len(result.margins)
            self.agreed += int((result.margins > 0).sum())

    def numbers(self) -> list[float]:
        """Every sum, then for each whether there was anything to measure."""
        held = list(vars(self).values())
        return [*(number or 0.0 for number in held), *(float(number is not None) for number in held)]

    @classmethod
    def of(cls, parts: Sequence[Sequence[float]]) -> Pass:
        """Add up the `numbers` of passes through parts of a step."""
        whole = cls()
        names = list(vars(whole))
        for place, name in enumerate(names):
            held = [part[place] for part in parts if part[len(names) + place]]
            if held:
                setattr(whole, name, max(held) if name == "mismatch_max" else sum(held))
        return whole
