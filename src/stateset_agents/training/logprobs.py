"""Log-probabilities of chosen tokens, a few rows of logits at a time.

Invariant: logits exist for trained tokens only, and for at most `ROWS` of them at once. The backward pass computes them
again: with p the softmax and H its entropy, d log p(target) / d logit = (onehot(target) - p) / temperature and
d H / d logit = -p (log p + H) / temperature.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..engines.packed import Head, PackedModel

ROWS = 64
"""Rows of logits held in float32 at once: 13 MB for a vocabulary of 49,152, which stays in a CPU's cache."""
BLOCK = 512
"""Rows whose logit gradients are gathered, in the head's precision, before they meet the weight."""


class _ChosenLogprobs(torch.autograd.Function):
    """(hidden, weight, bias) -> log-probs and entropies; see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs = hidden.new_empty(len(targets), dtype=torch.float32)
        entropies = torch.empty_like(logprobs)
        for begin in range(0, len(targets), ROWS):
            rows = slice(begin, begin + ROWS)
            scaled = head.logits(hidden[rows]).div_(temperature)
            total = scaled.logsumexp(-1)
            logprobs[rows] = scaled.gather(1, targets[rows, None])[:, 0] - total
            mean = torch.linalg.vecdot((scaled - total[:, None]).exp_(), scaled)
            entropies[rows] = total - mean
        ctx.save_for_backward(hidden, weight, targets, entropies, *([] if bias is None else [bias]))
        ctx.head, ctx.temperature = head, temperature
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, entropies, *biases = ctx.saved_tensors
        head: Head = ctx.head
        none = torch.zeros_like(entropies)
        outer = (none if gradients[0] is None else gradients[0]) / ctx.temperature
        spread = None if gradients[1] is None else gradients[1] / ctx.temperature
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(biases[0]) if biases and ctx.needs_input_grad[2] else None
        for block in range(0, len(targets), BLOCK):
            end = min(block + BLOCK, len(targets))
            slopes = hidden.new_empty(end - block, weight.shape[0])
            for begin in range(block, end, ROWS):
                rows = slice(begin, min(begin + ROWS, end))
                logits = head.logits(hidden[rows])
                slope = (logits / ctx.temperature).softmax(-1).neg_()
                bent = None if spread is None else _entropy_slope(slope, entropies[rows], spread[rows])
                slope.scatter_add_(1, targets[rows, None], torch.ones_like(slope[:, :1]))
                slope.mul_(outer[rows, None])
                if bent is not None:
                    slope += bent
                slope.mul_(head.slope(logits))
                slopes[rows.start - block : rows.stop - block] = slope
            to_hidden[block:end] = slopes @ weight
            if to_weight is not None:
                to_weight.addmm_(slopes.t(), hidden[block:end])
            if to_bias is not None:
                to_bias += slopes.sum(0)
        return to_hidden, to_weight, to_bias, None, None, None


def _entropy_slope(negative: Tensor, entropies: Tensor, outer: Tensor) -> Tensor:
    """Gradient of outer x H by the scaled logits, from -p; where p is 0 it is 0."""
    logs = negative.neg().log_().clamp_(min=-1e4)
    return negative * (logs + entropies[:, None]) * outer[:, None]


def chosen_logprobs(model: PackedModel, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and the entropy of the distribution it was drawn from.

    Args:
        model: gives the head.
        hidden: (N, hidden_size) states that predict the targets.
        targets: (N,) token ids.
        temperature: logits are divided by it, as the sampler does.

    Returns:
        (N,) log-probs and (N,) entropies, both with gradient, float32, in nats.
    """
    head = model.head
    apply: Any = _ChosenLogprobs.apply
    result: tuple[Tensor, Tensor] = apply(hidden, head.weight, head.bias, targets, head, temperature)
    return result
