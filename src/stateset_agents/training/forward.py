"""What a pass through the models says about a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
