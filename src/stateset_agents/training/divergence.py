"""How far a policy went from where it was, measured over the whole vocabulary.

Invariant: both policies see the same tokens, and a divergence is a sum over every token that could have been said, not
over the ones that were. Logits exist for a few rows at a time: of the policy before, its last hidden states and its
output layer are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engines.packed import PackedModel
from .logprobs import ROWS
from .packing import PackedBatch, SharedPrefixPlan


@dataclass(frozen=True)
class Compared:
    """Some trained tokens of a batch.

    Attributes:
        batch: whose.
        at: which of them.
        before, after: (n, vocabulary) log-probs.
    """

    batch: PackedBatch
    at: slice
    before: Tensor
    after: Tensor

    @property
    def kl(self) -> float:
        """KL(before || after), summed over the tokens."""
        return float((self.before.exp() * (self.before - self.after)).sum())


class PolicyBefore:
    """Made before an update.

    Args:
        packed: the model, as it is.
        batches: where the policies are compared.
        temperature: of both.
    """

    def __init__(self, packed: PackedModel, batches: Sequence[PackedBatch], temperature: float) -> None:
        self._packed, self._batches, self._temperature = packed, batches, temperature
        self._head = [parameter.detach().clone() for parameter in packed.head.trained]
        self._hidden = [self._states(batch) for batch in batches]

    @torch.no_grad()
    def compared(self) -> Iterator[Compared]:
        """With the model as it has become: every trained token of the batches, a few at a time."""
        for batch, hidden in zip(self._batches, self._hidden, strict=True):
            states = self._states(batch)
            for begin in range(0, len(states), ROWS):
                at = slice(begin, min(begin + ROWS, len(states)))
                after = self._logs(states[at])
                self._swap()
                try:
                    before = self._logs(hidden[at])
                finally:
                    self._swap()
                yield Compared(batch, at, before, after)

    @torch.no_grad()
    def _states(self, batch: PackedBatch) -> Tensor:
        return self._packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))[batch.predictors]

    def _logs(self, states: Tensor) -> Tensor:
        return (self._packed.head.logits(states) / self._temperature).log_softmax(-1)

    def _swap(self) -> None:
        """The output layer as it was for the one that is, and back."""
        now = self._packed.head.trained
        kept = [parameter.data for parameter in now]
        for parameter, other in zip(now, self._head, strict=True):
            parameter.data = other
        self._head = kept
