"""One optimizer step from scored groups. Knows nothing about where the conversations came from.

Invariant: the gradient of a step does not depend on how the step is cut into micro-batches, nor on what is packed
together; dropout is off; log-probs are those of the sampler's temperature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..algorithms import group_relative, policy_loss, token_weights
from ..core.errors import TrainingStopped
from ..core.trajectory import TrajectoryGroup
from ..engines.packed import PackedModel
from ..models import LoadedModel, base_policy, has_lora
from .compute import compute_dtype
from .logprobs import chosen_logprobs
from .packing import PackedBatch, Sample, SharedPrefixPlan
from .precision import MasterWeights

if TYPE_CHECKING:
    from ..config.training import TrainingConfig


@dataclass
class StepMetrics:
    """What one optimizer step measured. Means are over trained tokens unless named otherwise."""

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    grad_norm: float = 0.0
    clip_fraction: float = 0.0
    ratio_mean: float = 1.0
    mismatch_mean: float = 0.0
    mismatch_max: float = 0.0
    trained_tokens: int = 0
    forwarded_tokens: int = 0
    unique_tokens: int = 0
    zero_variance_share: float = 0.0
    learning_rate: float = 0.0
    updated: bool = False
    sums: dict[str, float] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the sums that the means are made of."""
        return {name: value for name, value in vars(self).items() if name != "sums"}


def samples_of(groups: Sequence[TrajectoryGroup], config: TrainingConfig, max_new_tokens: int) -> list[Sample]:
    """Annotate the rows of scored groups with advantages and weights.

    Groups with fewer than two scored conversations are left out. Conversations of a group with equal rewards have
    advantage 0; they count in the weights, and need no forward pass unless there is a KL term.

    Args:
        groups: of one optimizer step.
        config: algorithm settings.
        max_new_tokens: the agent's bound on a reply, for the "constant" normalization.

    Returns:
        Samples in group order; empty if no conversation of the step has a trained token.
    """
    kept = [group for group in groups if len(group.trajectories) >= 2]
    lengths = torch.tensor([t.trained_tokens for group in kept for t in group.trajectories])
    if not len(lengths) or not int(lengths.sum()):
        return []
    longest = max(t.length for group in kept for t in group.trajectories)
    weights = token_weights(lengths, config.loss_normalization, constant=max_new_tokens * longest).tolist()
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
    return samples


class Learner:
    """Owns the optimizer and the precision of a model.

    Args:
        loaded: the model to train; full parameters, or its adapter if it has one.
        config: resolved training settings.
        total_steps: length of the learning-rate schedule.
        warmup_steps: steps over which the rate rises.
        temperature: the sampler's.

    Raises:
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
    ) -> None:
        self.config = config
        self._loaded = loaded
        self._temperature = temperature
        self._total_steps = total_steps
        self._warmup_steps = warmup_steps
        self.compute, self.note = compute_dtype(config.mixed_precision, loaded.device)
        self._reference: PackedModel | None = None
        adapters = has_lora(loaded)
        if config.beta and not adapters:
            self._reference = self._frozen_copy()
        if not adapters:
            loaded.model.requires_grad_(True)
        self.weights = MasterWeights(loaded.model, self.compute)
        if not self.weights.masters:
            raise TrainingStopped("the model has no trainable parameter")
        if config.gradient_checkpointing:
            loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
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
        import copy

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

    def step(self, groups: Sequence[TrajectoryGroup], *, max_new_tokens: int) -> StepMetrics:
        """Train on one step's groups.

        Args:
            groups: scored conversations.
            max_new_tokens: see `samples_of`.

        Returns:
            Measurements; `updated` is False when no group had a difference in reward to learn from.

        Raises:
            TrainingStopped: the loss or the gradient is not finite. No weight was changed.
        """
        metrics = StepMetrics(learning_rate=self.learning_rate(self.steps))
        usable = [group for group in groups if len(group.trajectories) >= 2]
        flat = sum(1 for group in usable if len(set(group.rewards)) == 1)
        metrics.zero_variance_share = flat / len(usable) if usable else 0.0
        samples = samples_of(groups, self.config, max_new_tokens)
        if not samples:
            self.steps += 1
            return metrics
        batches = [PackedBatch.of(part, self._packed.device) for part in self._micro_batches(samples)]
        metrics.unique_tokens = _unique_tokens(samples)
        old: list[Tensor | None] = [None] * len(batches)
        for iteration in range(self.config.num_iterations):
            self.optimizer.zero_grad(set_to_none=True)
            for place, batch in enumerate(batches):
                old[place] = self._accumulate(batch, old[place], metrics, first=iteration == 0)
            self._update(metrics)
        self.steps += 1
        metrics.updated = True
        return metrics

    def _micro_batches(self, samples: Sequence[Sample]) -> Iterable[list[Sample]]:
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

    def _accumulate(self, batch: PackedBatch, old: Tensor | None, metrics: StepMetrics, *, first: bool) -> Tensor:
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
            raise TrainingStopped(
                "the loss is not finite: no weight was changed. Lower the learning rate, or train in float32 "
                "(mixed_precision: false)."
            )
        result.loss.backward()
        metrics.forwarded_tokens += batch.tokens
        if first:
            self._measure(batch, old, entropies, metrics)
        self._add(metrics, "clip_fraction", result.clipped.float().sum().item(), first)
        self._add(metrics, "ratio_mean", result.ratio.sum().item(), first)
        self._add(metrics, "loss", result.loss.item(), first)
        if result.kl is not None:
            self._add(metrics, "kl", result.kl.sum().item(), first)
        return old

    @staticmethod
    def _add(metrics: StepMetrics, name: str, value: float, first: bool) -> None:
        key = name if first else f"later {name}"
        metrics.sums[key] = metrics.sums.get(key, 0.0) + value

    @staticmethod
    def _measure(batch: PackedBatch, logprobs: Tensor, entropies: Tensor, metrics: StepMetrics) -> None:
        gap = batch.sampled_logprobs - logprobs
        metrics.trained_tokens += len(batch.targets)
        metrics.sums["entropy"] = metrics.sums.get("entropy", 0.0) + entropies.sum().item()
        metrics.sums["mismatch"] = metrics.sums.get("mismatch", 0.0) + gap.sum().item()
        metrics.mismatch_max = max(metrics.mismatch_max, gap.abs().max().item())

    def _update(self, metrics: StepMetrics) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.weights.masters, self.config.max_grad_norm)
        if not bool(norm.isfinite()):
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingStopped(
                "the gradient is not finite: no weight was changed. Lower the learning rate, or train in float32 "
                "(mixed_precision: false)."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = metrics.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.publish()
        tokens, sums = metrics.trained_tokens, metrics.sums
        later = "later " if "later loss" in sums else ""
        passes = max(1, self.config.num_iterations - 1) if later else 1
        metrics.grad_norm = norm.item()
        metrics.loss = sums["loss"]
        metrics.entropy = sums["entropy"] / tokens
        metrics.mismatch_mean = sums["mismatch"] / tokens
        metrics.clip_fraction = sums[f"{later}clip_fraction"] / tokens / passes
        metrics.ratio_mean = sums[f"{later}ratio_mean"] / tokens / passes
        if "kl" in sums:
            metrics.kl = sums["kl"] / tokens

    def full_weights(self) -> dict[str, Tensor]:
        """Every weight of the model by name, float32 masters where there are any; for a model without adapters."""
        masters = self.weights.state()
        return {name: masters.get(name, tensor).detach() for name, tensor in self._loaded.model.state_dict().items()}

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
        return self.weights.state(), slots, {"steps": self.steps}

    def load(self, weights: dict[str, Tensor], slots: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.weights.load(weights)
        masters = self.weights.state()
        for key, value in slots.items():
            name, slot = key.rsplit("|", 1)
            self.optimizer.state[masters[name]][slot] = value.clone()
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
