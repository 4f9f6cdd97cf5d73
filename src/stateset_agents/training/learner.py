"""One optimizer step from scored groups. Knows nothing about where the conversations came from.

Invariant: the gradient of a step does not depend on how the step is cut into micro-batches, nor on what is packed
together, nor on how many processes share the work; dropout is off; log-probs are those of the sampler's temperature. An
update that is not finite is not made.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ..core.errors import ConfigError, TrainingStopped
from ..core.trajectory import TrajectoryGroup
from ..models import LoadedModel, fresh_lora, has_lora
from ..models.allocation import keep_freed_memory
from .comparison import Comparison, compares, observed, settled
from .compute import compute_dtype
from .conversations import Conversation, conversations_of
from .credit import Credit
from .divergence import PolicyBefore
from .giving_up import GivenUp, Lookout, Undo
from .measured import measured_before
from .measures import Pass, StepMetrics
from .micro_batches import MicroBatchSize, Pieces
from .natural_update import NaturalUpdate, flat
from .objective import contribution, counted_tokens
from .optimizer import make_optimizer
from .packing import PackedBatch, Sample
from .policy_model import PolicyModel
from .precision import MasterWeights
from .ranks import Alone
from .recompute import recomputed_layers
from .samples import likelihood_samples, policy_samples, preference_samples
from .schedule import learning_rate
from .shares import unique_tokens
from .step_bound import LEAST_LEFT, StepBound

if TYPE_CHECKING:
    from ..config.training import TrainingConfig
    from .self_test import StepCheck


class Learner:
    """Owns the optimizer and the precision of a model.

    Args:
        loaded: the model to train; full parameters, or its adapter if it has one.
        config: resolved training settings.
        total_steps: length of the learning-rate schedule.
        warmup_steps: steps over which the rate rises.
        temperature: the sampler's.
        compute: name of the precision to compute in; None lets `config.mixed_precision` and the machine decide.
        ranks: the processes that share the work of a step; None is this one alone.

    Attributes:
        compute: the precision of forward and backward passes.
        note: a sentence for the user where that is not what was asked for, or None.
        weights: the float32 masters.
        policy: the model over micro-batches.
        micro_batch: how many conversations go through the model at once; fewer than asked for once memory ran out.
        steps: how many were made; those without an update count.
        credit: what the last one made of its conversations; None before the first.

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
        ranks: Alone | None = None,
    ) -> None:
        if temperature <= 0:
            raise ConfigError(
                f"temperature is {temperature}: the conversations of a group would be alike, and nothing could be "
                "learned from them; set a temperature above 0"
            )
        self.config = config
        self._loaded = loaded
        self._total_steps = total_steps
        self._warmup_steps = warmup_steps
        self._ranks = ranks or Alone()
        keep_freed_memory()
        self.compute, self.note = compute_dtype(config.mixed_precision, loaded.device, was=compute)
        if len({half for (half,) in self._ranks.gather(self.compute == torch.bfloat16)}) > 1:
            self.compute, self.note = torch.float32, "bfloat16 is slower for some of the ranks, so all use float32"
        adapters = has_lora(loaded)
        recipe = config.recipe
        self._lookout = Lookout()
        self._undo: Undo | None = None
        self.policy = PolicyModel(
            loaded,
            compute=self.compute,
            temperature=temperature,
            reference=config.beta > 0 and recipe.kind in ("policy", "preference"),
            values=recipe.baseline == "value",
            look=self._lookout.look,
        )
        self._began_there = not adapters or fresh_lora(loaded)
        if not adapters:
            loaded.model.requires_grad_(True)
        self.weights = MasterWeights(loaded.model, self.compute)
        if not self.weights.masters:
            raise TrainingStopped("the model has no trainable parameter")
        self.optimizer = make_optimizer(self.weights.masters, self.policy.value_head, config)
        self._bounded = config.auto_adjust and config.recipe.kind == "policy"
        self.micro_batch = MicroBatchSize(config.batch_size, self._ranks, self._lookout)
        self.steps = 0
        self.credit: Credit | None = None

    def take(self, config: TrainingConfig, temperature: float) -> None:
        """Go on with other settings: those that a step reads, and the sampler's temperature."""
        self.config, self.policy.temperature = config, temperature

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.policy.device

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step counted from 0: linear warm-up, then the configured schedule down to 0."""
        return learning_rate(self.config, step, warmup_steps=self._warmup_steps, total_steps=self._total_steps)

    @property
    def from_reference(self) -> bool:
        """Whether it began with the weights of its reference, as far as it was told."""
        return self.policy.has_reference and self._began_there and not self.weights.loaded

    def step(
        self,
        groups: Sequence[TrajectoryGroup],
        *,
        max_tokens: int,
        max_new_tokens: int = 0,
        check: StepCheck | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> StepMetrics:
        """Train on one step's groups.

        Args:
            groups: scored conversations.
            max_tokens: the most tokens that a conversation can have sampled, the divisor of the "constant"
                normalization.
            max_new_tokens: the length limit of a reply; see `conversations_of`.
            check: is told what the first update measures, and may stop the run before it is kept.
            is_over: asked before each layer, forwards and backwards, whether the step must be given up; no longer once
                that cannot be taken back.

        Returns:
            Measurements; `updated` is False when no group had a difference in reward to learn from. No weight was
            changed then.

        Raises:
            TrainingStopped: the loss or the gradient is not finite; the weights are those before that update. Or what
                `check` raises.
            GivenUp: as `is_over` said; the learner's state is that before the step.
        """
        metrics = StepMetrics(learning_rate=self.learning_rate(self.steps), temperature=self.policy.temperature)
        self._loaded.model.eval()
        with recomputed_layers(self._loaded.model) if self.config.gradient_checkpointing else nullcontext():
            talks = conversations_of(groups, self.config, max_new_tokens)
            self._ranks.require_same(itertools.chain(self._loaded.model.parameters(), self._trained().values()), talks)
            begin = functools.partial(self._begin, talks, max_tokens, metrics, check)
            size = self.micro_batch.state_dict()
            if self.config.num_iterations > 1 and is_over is not None:
                self._undo = Undo.if_it_fits(self.weights, self._trained(), self.optimizer)
            if not all(kept for (kept,) in self._ranks.gather(self._undo is not None)):
                self._forgo_undo()
            try:
                with self._lookout.during(is_over):
                    samples, pieces, first = self.micro_batch.until_it_fits(len(talks), begin, self._forgo_undo)
                    if first is not None:
                        self._train(samples, pieces, first, metrics, check)
            except GivenUp:
                self.optimizer.zero_grad(set_to_none=True)
                if self._undo is not None:
                    self._undo()
                self.micro_batch.load_state_dict(size)
                raise
            finally:
                self._forgo_undo()
            self.credit = Credit(talks, samples)
        self.steps += 1
        return metrics

    def _samples(self, talks: Sequence[Conversation], max_tokens: int, check: StepCheck | None) -> list[Sample]:
        kind = self.config.recipe.kind
        if kind == "preference":
            return preference_samples(talks)
        if kind == "likelihood":
            return likelihood_samples(talks, self.config, max_tokens)
        kl = self.policy.has_reference and self.config.kl_in == "reward"
        needed = self.policy.value_head is not None or kl
        measured = measured_before(talks, self.policy, self.micro_batch, self._ranks, kl=kl) if needed else None
        if check is not None and measured is not None and self.config.kl_in == "reward":
            check.reference([difference for one in measured.values() for difference in one.kl])
        return policy_samples(talks, self.config, max_tokens, measured)

    def _begin(
        self, talks: Sequence[Conversation], max_tokens: int, metrics: StepMetrics, check: StepCheck | None
    ) -> tuple[list[Sample], Pieces, Pass | None]:
        """The first pass of a step and all that comes before it; None where there is nothing to learn."""
        samples = self._samples(talks, max_tokens, check)
        pieces = Pieces(self._ranks.share(samples), self.micro_batch, self.policy.device)
        return samples, pieces, self._one_pass(samples, pieces, metrics, check) if samples else None

    def _one_pass(
        self, samples: Sequence[Sample], pieces: Pieces, metrics: StepMetrics, check: StepCheck | None = None
    ) -> Pass:
        pieces.cut()
        measured = self._gradient(pieces.batches, pieces.old, counted_tokens(self.config, samples))
        if check is not None:
            plain = self.config.recipe.kind != "natural" and not self.optimizer.state
            rate = metrics.learning_rate * (LEAST_LEFT if self._bounded else 1.0) if plain else None
            check.first_pass(measured, _trained_tokens(samples), self.weights.state(), self.policy.untrained(), rate)
        if self.config.recipe.kind == "natural":
            self._natural_update(pieces.batches, metrics)
        return measured

    def _train(
        self,
        samples: Sequence[Sample],
        pieces: Pieces,
        first: Pass,
        metrics: StepMetrics,
        check: StepCheck | None,
    ) -> None:
        passes = [first]
        again = functools.partial(self._another_pass, samples, pieces, metrics)
        conversations = len({sample.conversation for sample in samples})
        for number in range(self.config.num_iterations):
            if number:
                passes.append(self.micro_batch.until_it_fits(conversations, again, self._forgo_undo))
            if self.config.recipe.kind != "natural":
                self._move(pieces, metrics)
            if check is not None and not number:
                check.updated(self.weights.state(), self.policy.untrained())
        forwarded = self._ranks.gather(sum(batch.tokens for batch in pieces.batches))
        metrics.forwarded_tokens = int(sum(number for (number,) in forwarded))
        metrics.unique_tokens = unique_tokens(samples)
        metrics.take(passes, _trained_tokens(samples), self.config)

    def _another_pass(self, samples: Sequence[Sample], pieces: Pieces, metrics: StepMetrics) -> Pass:
        """One after an update was made."""
        if self._undo is None:
            self._lookout.end()
        return self._one_pass(samples, pieces, metrics)

    def _forgo_undo(self) -> None:
        self._undo = None

    def _move(self, pieces: Pieces, metrics: StepMetrics) -> None:
        """The optimizer's update; with `auto_adjust` shortened where it changes the policy too much."""
        if not self._bounded:
            metrics.grad_norm = self._update(metrics.learning_rate)
            return
        part = pieces.batches[:1]  # none where the other ranks have them all
        with self.micro_batch.giving_up():
            before = PolicyBefore(self.policy.packed, part, temperature=1.0)
        tokens = sum(len(batch.targets) for batch in part)
        bound = StepBound(self.weights, lambda: (sum(one.kl for one in before.compared()), tokens), self._ranks)
        metrics.grad_norm = self._update(metrics.learning_rate)
        metrics.step_share = min(bound.shorten(), metrics.step_share or 1.0)

    def _gradient(self, batches: Sequence[PackedBatch], old: list[Tensor | None], tokens: int) -> Pass:
        """Gradient of the whole step, on every rank, and what all of them measured."""
        own = Pass()
        self.optimizer.zero_grad(set_to_none=True)
        comparison = self._comparison(batches)
        with self.micro_batch.fitting():
            old[:] = [
                self._accumulate(batch, before, own, tokens, comparison)
                for batch, before in zip(batches, old, strict=True)
            ]
        whole = Pass.of(self._ranks.gather(*own.numbers()))
        if not math.isfinite(whole.loss):
            self._refuse("loss")
        self._ranks.sum_gradients(list(self._trained().values()))
        return whole

    @torch.no_grad()
    def _comparison(self, batches: Sequence[PackedBatch]) -> Comparison | None:
        """What a micro-batch must know of the others; None where that is nothing, or there are no others."""
        if not compares(self.config) or (len(batches) == 1 and self._ranks.size == 1):
            return None
        reference = self.config.recipe.kind == "preference"
        with self.micro_batch.fitting():
            parts = [(batch, self.policy.forward(batch, None, reference=reference)) for batch in batches]
            columns = observed(self.config, parts, self.policy.device)
        return settled(self.config, self._ranks.concatenate(columns))

    def _accumulate(
        self, batch: PackedBatch, old: Tensor | None, measured: Pass, tokens: int, comparison: Comparison | None
    ) -> Tensor:
        """Forward and backward of one micro-batch; returns the log-probs at the start of the step."""
        in_loss = self.config.recipe.kind == "preference" or self.config.kl_in == "loss"
        forward = self.policy.forward(batch, old, reference=in_loss)
        result = contribution(self.config, batch, forward, tokens, comparison)
        result.loss.backward()
        measured.add(batch, forward, result)
        return forward.old

    def _natural_update(self, batches: Sequence[PackedBatch], metrics: StepMetrics) -> None:
        """A TRPO step in the place of the optimizer's."""
        gradient = flat([torch.zeros_like(m) if m.grad is None else m.grad for m in self.weights.masters]).neg()
        norm = gradient.norm()
        if not bool(norm.isfinite()):
            self._refuse("gradient")
        self.optimizer.zero_grad(set_to_none=True)
        update = NaturalUpdate(
            self.policy.packed,
            self.weights.masters,
            batches,
            temperature=self.policy.temperature,
            max_kl=self.config.max_kl,
            iterations=self.config.cg_iterations,
            damping=self.config.cg_damping,
            backtracks=self.config.line_search_steps,
            ranks=self._ranks,
            fitting=self.micro_batch.fitting,
        )
        taken = update(gradient)
        metrics.grad_norm = norm.item()
        metrics.step_kl, metrics.step_share = taken.kl, taken.share

    def _update(self, learning_rate: float) -> float:
        """Apply the gradient that the masters hold; returns its norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.weights.masters, self.config.max_grad_norm)
        if self.policy.value_head is not None:
            torch.nn.utils.clip_grad_norm_(self.policy.value_head.parameters(), self.config.max_grad_norm)
        if not bool(norm.isfinite()):
            self._refuse("gradient")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
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
        """Masters, optimizer slots (both by parameter name) and counters: all that a resumed run needs.

        A value head is no part of the model, so its weights are among the slots.
        """
        by_id = {id(master): name for name, master in self._trained().items()}
        head = self.policy.value_head
        slots = {} if head is None else {f"{name}|value": weight for name, weight in head.named().items()}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                for slot, value in self.optimizer.state[parameter].items():
                    slots[f"{by_id[id(parameter)]}|{slot}"] = value
        counters = {
            "steps": self.steps,
            "compute": str(self.compute).removeprefix("torch."),
            "micro_batch": self.micro_batch.state_dict(),
        }
        return self.weights.state(), slots, counters

    def _trained(self) -> dict[str, Tensor]:
        return self.weights.state() | ({} if self.policy.value_head is None else self.policy.value_head.named())

    def load(self, weights: dict[str, Tensor], slots: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.weights.load(weights)
        trained = self._trained()
        for key, value in slots.items():
            name, slot = key.rsplit("|", 1)
            parameter = trained[name]
            if slot == "value":
                parameter.data.copy_(value)
            else:
                self.optimizer.state[parameter][slot] = value.to(parameter.device, copy=True)
        self.steps = int(counters["steps"])
        if "micro_batch" in counters:  # a run of an earlier version has found out nothing
            self.micro_batch.load_state_dict(counters["micro_batch"])


def _trained_tokens(samples: Sequence[Sample]) -> int:
    return sum(sample.row.trained_tokens for sample in samples)
