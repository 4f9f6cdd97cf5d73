"""One step of TRPO on a model's own parameters.

Invariant: the update that stays is one whose mean KL from the policy before, over the whole vocabulary at every trained
token, was measured to be inside the bound; otherwise the weights are the old ones to the last bit.

The Fisher matrix is the Hessian of that KL where both policies are the same; its products are second derivatives, exact
up to rounding. That needs every operation to be differentiable twice, so attention runs in its plain form, and logits
exist for a whole micro-batch: it is a method for small models or adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..algorithms import LineSearch, line_search, natural_step
from ..engines.packed import PackedModel
from .divergence import PolicyBefore
from .packing import PackedBatch, SharedPrefixPlan
from .ranks import Alone


class NaturalUpdate:
    """Makes one step; the gradient is given.

    Args:
        packed: the model.
        parameters: what is trained, float32.
        batches: of the step, or of this rank's share of it.
        temperature: of the policy.
        max_kl, iterations, damping, backtracks: see `TrainingConfig`.
        ranks: the processes that share the work; products, gain and KL are those of the whole step on all of them.
        fitting: around what this rank computes by itself, between two places where it waits for the others; what it
            raises there it must raise on all of them.
    """

    def __init__(
        self,
        packed: PackedModel,
        parameters: Sequence[Tensor],
        batches: Sequence[PackedBatch],
        *,
        temperature: float,
        max_kl: float,
        iterations: int,
        damping: float,
        backtracks: int,
        ranks: Alone | None = None,
        fitting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._packed = packed
        self._parameters = list(parameters)
        self._batches = list(batches)
        self._temperature = temperature
        self._max_kl, self._iterations, self._damping, self._backtracks = max_kl, iterations, damping, backtracks
        self._ranks, self._fitting = ranks or Alone(), fitting
        self._tokens = sum(n for (n,) in self._ranks.gather(sum(len(batch.targets) for batch in batches)))

    def __call__(self, gradient: Tensor) -> LineSearch:
        """Move the parameters.

        Args:
            gradient: (n,) of the objective that is to grow.
        """
        step = natural_step(gradient, self.fisher_product, max_kl=self._max_kl, iterations=self._iterations)
        origin = [parameter.detach().clone() for parameter in self._parameters]
        with self._fitting():
            before = PolicyBefore(self._packed, self._batches, self._temperature)

        def measure(share: float) -> tuple[float, float]:
            self._move(origin, step, share)
            return self._gain_and_kl(before) if share else (0.0, 0.0)

        try:
            return line_search(measure, max_kl=self._max_kl, backtracks=self._backtracks)
        except BaseException:  # memory ran out, say
            self._move(origin, step, 0.0)
            raise

    def fisher_product(self, vector: Tensor) -> Tensor:
        """(n,) -> F vector + damping x vector."""
        product = self._damping * vector if self._ranks.rank == 0 else torch.zeros_like(vector)
        parts = self._split(vector)
        with self._fitting(), sdpa_kernel(SDPBackend.MATH):
            for batch in self._batches:
                logs = self._log_softmax(batch)
                fixed = logs.detach()
                divergence = (fixed.exp() * (fixed - logs)).sum() / self._tokens
                slopes = torch.autograd.grad(divergence, self._parameters, create_graph=True, materialize_grads=True)
                along = sum((slope * part).sum() for slope, part in zip(slopes, parts, strict=True))
                second = torch.autograd.grad(along, self._parameters, materialize_grads=True)  # type: ignore[arg-type]
                product = product + flat(second)
        self._ranks.sum([product])
        return product

    def _log_softmax(self, batch: PackedBatch) -> Tensor:
        hidden = self._packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
        return (self._packed.head.logits(hidden[batch.predictors]) / self._temperature).log_softmax(-1)

    def _gain_and_kl(self, before: PolicyBefore) -> tuple[float, float]:
        """How much the objective grew, and the mean KL(before || now) over the vocabulary."""
        gain = divergence = 0.0
        with self._fitting():
            for part in before.compared():
                divergence += part.kl
                batch, at = part.batch, part.at
                ratio = (part.after - part.before).gather(1, batch.targets[at, None])[:, 0].exp()
                gain += float((batch.weights[at] * batch.advantages[at] * (ratio - 1.0)).sum())
        gains, divergences = zip(*self._ranks.gather(gain, divergence), strict=True)
        return sum(gains), sum(divergences) / self._tokens

    def _split(self, vector: Tensor) -> list[Tensor]:
        sizes = [parameter.numel() for parameter in self._parameters]
        return [p.view_as(q) for p, q in zip(vector.split(sizes), self._parameters, strict=True)]

    @torch.no_grad()
    def _move(self, origin: Sequence[Tensor], step: Tensor, share: float) -> None:
        for parameter, start, part in zip(self._parameters, origin, self._split(step), strict=True):
            parameter.copy_(start if share == 0 else start + share * part)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
