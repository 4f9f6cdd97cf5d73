"""One optimizer step from scored groups. Knows nothing about where the conversations came from.

Invariant: the gradient of a step does not depend on how the step is cut into micro-batches, nor on what is packed
together; dropout is off; log-probs are those of the sampler's temperature. An update that is not finite is not made.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ..algorithms import PolicyLoss, group_relative, policy_loss, token_weights
from ..core.errors import ConfigError, TrainingStopped
from ..core.trajectory import TrajectoryGroup
from ..engines.packed import PackedModel
from ..models import LoadedModel, base_policy, has_lora
from .compute import compute_dtype, keep_freed_memory
from .logprobs import chosen_logprobs
from .packing import PackedBatch, Sample, SharedPrefixPlan
from .precision import MasterWeights
from .recompute import recomputed_layers

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
        mismatch_mean, mismatch_size, mismatch_max: log-prob that the sampler recorded less the learner's: its mean, the
            mean of its size, and its largest size.
        trained_tokens: tokens with an advantage (or a KL term).
        forwarded_tokens: tokens that one pass puts through the model.
        unique_tokens: the fewest that it could: each prompt of a group once.
        learning_rate: of the step.
        updated: whether there was a difference in reward to learn from.
    """

    loss: float = 0.0
    kl: float | None = None
    entropy: float | None = None
    grad_norm: float = 0.0
    clip_fraction: float | None = None
    ratio_mean: float | None = None
    mismatch_mean: float | None = None
    mismatch_size: float | None = None
    mismatch_max: float | None = None
    trained_tokens: int = 0
    forwarded_tokens: int = 0
    unique_tokens: int = 0
    learning_rate: float = 0.0
    updated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Everything by name."""
        return dict(vars(self))


@dataclass
class _Pass:
    """Sums over the trained tokens of one pass through a step's conversations."""

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    mismatch: float = 0.0
    mismatch_size: float = 0.0
    mismatch_max: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0

    def add(self, batch: PackedBatch, logprobs: Tensor, entropies: Tensor, result: PolicyLoss) -> None:
        """Take note of a micro-batch."""
        gap = batch.sampled_logprobs - logprobs
        self.loss += result.loss.item()
        self.entropy += entropies.sum().item()
        self.mismatch += gap.sum().item()
        self.mismatch_size += gap.abs().sum().item()
        self.mismatch_max = max(self.mismatch_max, gap.abs().max().item())
        self.clipped += result.clipped.sum().item()
        self.ratio += result.ratio.sum().item()
        if result.kl is not None:
            self.kl = (self.kl or 0.0) + result.kl.sum().item()


def samples_of(groups: Sequence[TrajectoryGroup], config: TrainingConfig, max_tokens: int) -> list[Sample]:
    """Annotate the rows of scored groups with advantages and weights.

    Groups with fewer than two scored conversations are left out. Conversations of a group with equal rewards have
    advantage 0; they count in the weights, and need no forward pass unless there is a KL term.

    Args:
        groups: of one optimizer step.
        config: algorithm settings.
        max_tokens: the most tokens that a conversation can have sampled, the divisor of the "constant" normalization.

    Returns:
        Samples in group order; empty if there is nothing to learn from: no trained token with an advantage.
    """
    kept = [group for group in groups if len(group.trajectories) >= 2]
    lengths = torch.tensor([t.trained_tokens for group in kept for t in group.trajectories])
    if not len(lengths) or not int(lengths.sum()):
        return []
    weights = token_weights(lengths, config.loss_normalization, constant=max_tokens).tolist()
    samples: list[Sample] = []
    conversation = 0
    for index, group in enumerate(kept):
        rewards = torch.tensor([group.rewards], dtype=torch.float64)
        advantages = group_relative(rewards, scale=config.scale_rewards)[0].tolist()
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
            samples.extend(
                Sample(row, advantage, weights[conversation], conversation, index)
                for row in trajectory.rows
                if row.trained_tokens and (advantage != 0.0 or config.beta != 0.0)
            )
            conversation += 1
    return samples if any(sample.advantage for sample in samples) else []


class Learner:
    """Owns the optimizer and the precision of a model.

    Args:
        loaded: the model to train; full parameters, or its adapter if it has one.
        config: resolved training settings.
        total_steps: length of the learning-rate schedule.
        warmup_steps: steps over which the rate rises.
        temperature: the sampler's.
        compute: name of the precision to compute in; None lets `config.mixed_precision` and the machine decide.

    Attributes:
        compute: the precision of forward and backward passes.
        note: a sentence for the user where that is not what was asked for, or None.
        weights: the float32 masters.
        steps: how many were made; those without an update count.

    Raises:
        ConfigError: the temperature is 0.
        TrainingStopped: the model has no trainable parameter.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: TrainingConfig,
        *,
        total_steps: int,
        temperature: float,
        warmup_steps: int = 0,
        compute: str | None = None,
    ) -> None:
        if temperature <= 0:
            raise ConfigError(
                f"temperature is {temperature}: the conversations of a group would be alike, and nothing could be "
                "learned from them; set a temperature above 0"
            )
        self.config = config
        self._loaded = loaded
        self._temperature = temperature
        self._total_steps = total_steps
        self._warmup_steps = warmup_steps
        keep_freed_memory()
        self.compute, self.note = compute_dtype(config.mixed_precision, loaded.device, was=compute)
        self._reference: PackedModel | None = None
        adapters = has_lora(loaded)
        if config.beta and not adapters:
            self._reference = self._frozen_copy()
        if not adapters:
            loaded.model.requires_grad_(True)
        self.weights = MasterWeights(loaded.model, self.compute)
        if not self.weights.masters:
            raise TrainingStopped("the model has no trainable parameter")
        self._packed = PackedModel(loaded.model)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )
        self.steps = 0

    def _frozen_copy(self) -> PackedModel:
        frozen = copy.deepcopy(self._loaded.model).requires_grad_(False).eval()
        for parameter in frozen.parameters():  # buffers stay: rotary frequencies need float32
            parameter.data = parameter.data.to(self.compute)
        return PackedModel(frozen)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Weight decay on matrices only: norms and biases are not pulled to zero."""
        matrices = [m for m in self.weights.masters if m.dim() >= 2]
        others = [m for m in self.weights.masters if m.dim() < 2]
        groups = [{"params": matrices, "weight_decay": self.config.weight_decay}]
        return [*groups, {"params": others, "weight_decay": 0.0}] if others else groups

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step counted from 0: linear warm-up, then the configured schedule down to 0."""
        config, warmup = self.config, self._warmup_steps
        if step < warmup:
            return config.learning_rate * (step + 1) / warmup
        if config.lr_schedule == "constant":
            return config.learning_rate
        left = (self._total_steps - step) / max(1, self._total_steps - warmup)
        left = min(1.0, max(0.0, left))
        if config.lr_schedule == "cosine":
            return config.learning_rate * 0.5 * (1.0 - math.cos(math.pi * left))
        return config.learning_rate * left

    def step(self, groups: Sequence[TrajectoryGroup], *, max_tokens: int) -> StepMetrics:
        """Train on one step's groups.

        Args:
            groups: scored conversations.
            max_tokens: see `samples_of`.

        Returns:
            Measurements; `updated` is False when no group had a difference in reward to learn from. No weight was
            changed then.

        Raises:
            TrainingStopped: the loss or the gradient is not finite. The weights are those before that update.
        """
        metrics = StepMetrics(learning_rate=self.learning_rate(self.steps))
        samples = samples_of(groups, self.config, max_tokens)
        if samples:
            self._loaded.model.eval()
            with recomputed_layers(self._loaded.model) if self.config.gradient_checkpointing else nullcontext():
                self._train(samples, metrics)
        self.steps += 1
        return metrics

    def _train(self, samples: Sequence[Sample], metrics: StepMetrics) -> None:
        batches = [PackedBatch.of(part, self._packed.device) for part in self._micro_batches(samples)]
        old: list[Tensor | None] = [None] * len(batches)
        passes: list[_Pass] = []
        for _ in range(self.config.num_iterations):
            passes.append(_Pass())
            self.optimizer.zero_grad(set_to_none=True)
            for place, batch in enumerate(batches):
                old[place] = self._accumulate(batch, old[place], passes[-1])
            metrics.grad_norm = self._update(metrics.learning_rate)
        metrics.updated = True
        metrics.trained_tokens = tokens = sum(len(batch.targets) for batch in batches)
        metrics.forwarded_tokens = sum(batch.tokens for batch in batches)
        metrics.unique_tokens = _unique_tokens(samples)
        first, later = passes[0], passes[1:] or passes
        metrics.loss = first.loss
        metrics.kl = None if first.kl is None else first.kl / tokens
        metrics.entropy = first.entropy / tokens
        metrics.mismatch_mean, metrics.mismatch_max = first.mismatch / tokens, first.mismatch_max
        metrics.mismatch_size = first.mismatch_size / tokens
        metrics.clip_fraction = sum(one.clipped for one in later) / (tokens * len(later))
        metrics.ratio_mean = sum(one.ratio for one in later) / (tokens * len(later))

    def _micro_batches(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        """At most `batch_size` conversations each; the rows of a conversation stay together."""
        part: list[Sample] = []
        conversations: set[int] = set()
        for sample in samples:
            if sample.conversation not in conversations and len(conversations) == self.config.batch_size:
                yield part
                part, conversations = [], set()
            part.append(sample)
            conversations.add(sample.conversation)
        if part:
            yield part

    def logprobs(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Log-probs (with gradient) and entropies of a batch's trained tokens, both (N,)."""
        hidden = self._packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
        return chosen_logprobs(self._packed, hidden[batch.predictors], batch.targets, self._temperature)

    @torch.no_grad()
    def reference_logprobs(self, batch: PackedBatch) -> Tensor | None:
        """Log-probs under the reference: the adapter switched off, or the frozen copy; None at beta 0."""
        if not self.config.beta:
            return None
        packed = self._reference or self._packed
        with base_policy(self._loaded) if self._reference is None else nullcontext():
            hidden = packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
            return chosen_logprobs(packed, hidden[batch.predictors], batch.targets, self._temperature)[0]

    def _accumulate(self, batch: PackedBatch, old: Tensor | None, measured: _Pass) -> Tensor:
        """Forward and backward of one micro-batch; returns the log-probs at the start of the step."""
        reference = self.reference_logprobs(batch)
        logprobs, entropies = self.logprobs(batch)
        if old is None:
            old = logprobs.detach()
        result = policy_loss(
            logprobs,
            old,
            batch.advantages,
            batch.weights,
            clip_low=self.config.clip_low,
            clip_high=self.config.clip_high,
            beta=self.config.beta,
            reference=reference,
            kl_estimator=self.config.kl_estimator,
        )
        if not bool(result.loss.isfinite()):
            self._refuse("loss")
        result.loss.backward()
        measured.add(batch, logprobs.detach(), entropies, result)
        return old

    def _update(self, learning_rate: float) -> float:
        """Apply the gradient that the masters hold; returns its norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.weights.masters, self.config.max_grad_norm)
        if not bool(norm.isfinite()):
            self._refuse("gradient")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.publish()
        return norm.item()

    def _refuse(self, what: str) -> NoReturn:
        self.optimizer.zero_grad(set_to_none=True)
        raise TrainingStopped(
            f"the {what} is not finite, so the update was not made. Lower the learning rate, or train in float32 "
            "(mixed_precision: false)."
        )

    def full_weights(self) -> dict[str, Tensor]:
        """Every weight of the model by name, float32 masters where there are any; for a model without adapters."""
        model, masters = self._loaded.model, self.weights.state()
        # A tied weight has several names and one master.
        by_id = {id(parameter): masters.get(name, parameter) for name, parameter in model.named_parameters()}
        names = model.state_dict(keep_vars=True)
        return {name: by_id.get(id(tensor), tensor).detach() for name, tensor in names.items()}

    def close(self) -> None:
        """Give the model its float32 weights back; the learner is of no use afterwards."""
        self.weights.restore()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
        """Masters, optimizer slots (both by parameter name) and counters: all that a resumed run needs."""
        by_id = {id(master): name for name, master in self.weights.state().items()}
        slots: dict[str, Tensor] = {}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                for slot, value in self.optimizer.state[parameter].items():
                    slots[f"{by_id[id(parameter)]}|{slot}"] = value
        return self.weights.state(), slots, {"steps": self.steps, "compute": str(self.compute).removeprefix("torch.")}

    def load(self, weights: dict[str, Tensor], slots: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.weights.load(weights)
        masters = self.weights.state()
        for key, value in slots.items():
            name, slot = key.rsplit("|", 1)
            master = masters[name]
            self.optimizer.state[master][slot] = value.to(master.device, copy=True)
        self.steps = int(counters["steps"])


def _unique_tokens(samples: Sequence[Sample]) -> int:
    """The least that a step must compute: each prompt of a group once, and each row's own tokens."""
    prompts: set[tuple[int, ...]] = set()
    own = 0
    for sample in samples:
        mask = sample.row.mask
        first = mask.index(1)
        last = len(mask) - 1 - mask[::-1].index(1)
        prompts.add((sample.group, *sample.row.ids[:first]))
        own += last - first
    return own + sum(len(prompt) - 1 for prompt in prompts)
