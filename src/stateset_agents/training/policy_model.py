"""The policy over packed micro-batches, with its value head and its reference.

Invariant: nothing here changes a weight. Log-probs are those of the sampler's temperature.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..models import LoadedModel, base_policy, has_lora
from .forward import Forward
from .giving_up import WatchedModel
from .logprobs import chosen_logprobs
from .packing import PackedBatch, SharedPrefixPlan
from .value_head import ValueHead


class PolicyModel:
    """Made before the weights are split into masters and a computing copy.

    Args:
        loaded: the model; a reference beside it is a frozen copy, or the model without its adapter.
        compute: the precision that the reference computes in.
        temperature: the sampler's.
        reference: whether there is one.
        values: whether there is a value head.
        look: see `WatchedModel`.

    Attributes:
        packed: the model that is trained.
        reference: the frozen copy, where there is one.
        value_head: in float32.
        temperature: may be set between two steps.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        compute: torch.dtype,
        temperature: float,
        reference: bool,
        values: bool,
        look: Callable[..., None],
    ) -> None:
        self._loaded = loaded
        self.temperature = temperature
        self.has_reference = reference
        copied = reference and not has_lora(loaded)
        self.reference = WatchedModel(_frozen_copy(loaded, compute), look) if copied else None
        self.packed = WatchedModel(loaded.model, look)
        self.value_head = ValueHead(self.packed.config.hidden_size, self.packed.device) if values else None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.packed.device

    def logprobs(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of a batch's trained tokens, both (N,), with gradient."""
        return chosen_logprobs(self.packed, self._states(batch), batch.targets, self.temperature)

    def forward(self, batch: PackedBatch, old: Tensor | None, *, reference: bool) -> Forward:
        """All that the models say about a batch.

        Args:
            batch: of N trained tokens.
            old: (N,) log-probs at the start of the step; None: it begins with this pass.
            reference: whether the reference's are needed.
        """
        states = self._states(batch)
        logprobs, entropies = chosen_logprobs(self.packed, states, batch.targets, self.temperature)
        values = None if self.value_head is None else self.value_head(states)
        compared = self.reference_logprobs(batch) if reference else None
        return Forward(logprobs, entropies, logprobs.detach() if old is None else old, values, compared)

    @torch.no_grad()
    def reference_logprobs(self, batch: PackedBatch) -> Tensor | None:
        """Log-probs under the reference, (N,): the adapter switched off, or the frozen copy; None without one."""
        if not self.has_reference:
            return None
        packed = self.reference or self.packed
        with base_policy(self._loaded) if self.reference is None else nullcontext():
            hidden = packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
            return chosen_logprobs(packed, hidden[batch.predictors], batch.targets, self.temperature)[0]

    def untrained(self) -> dict[str, Tensor]:
        """Weights that no update may move: the frozen ones, and the reference's."""
        frozen: dict[str, Tensor] = {
            name: p for name, p in self._loaded.model.named_parameters() if not p.requires_grad
        }
        if self.reference is not None:
            frozen |= {f"reference.{name}": p for name, p in self.reference.named_weights().items()}
        return frozen

    def _states(self, batch: PackedBatch) -> Tensor:
        """(N, hidden_size) states that predict the trained tokens."""
        hidden = self.packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
        return hidden[batch.predictors]


def _frozen_copy(loaded: LoadedModel, compute: torch.dtype) -> nn.Module:
    frozen: nn.Module = copy.deepcopy(loaded.model).requires_grad_(False).eval()
    for parameter in frozen.parameters():  # buffers stay: rotary frequencies need float32
        parameter.data = parameter.data.to(compute)
    return frozen
