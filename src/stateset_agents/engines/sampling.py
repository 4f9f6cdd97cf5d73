"""One token from one row of logits, with noise that depends on nothing but the request's key and the position.

Invariant: `(key, position)` and the row's logits decide the token. No random generator is read, so neither the batch
nor the order of requests can change a reply.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import SamplingParams


def uniform(key: str, position: int) -> float:
    """A number in (0, 1) made from a hash of key and position, on a grid of 2**-53."""
    digest = hashlib.blake2b(f"{key}\0{position}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "little") >> 11) + 0.5) * 2.0**-53


def choose(
    logits: Tensor, params: Sequence[SamplingParams], noise: Sequence[float], seen: Sequence[Sequence[int]]
) -> tuple[list[int], list[float]]:
    """Sample one token for each row by inverting the cumulative distribution.

    Args:
        logits: (rows, vocabulary), float32.
        params: how to sample each row.
        noise: a number in (0, 1) for each row.
        seen: ids that the repetition penalty looks at, for each row.

    Returns:
        Ids, and their natural-log probabilities in the untruncated distribution at the row's temperature
        (temperature 1 for a greedy row).
    """
    temperature = torch.tensor([p.temperature or 1.0 for p in params], device=logits.device)
    logprobs = (logits / temperature[:, None]).log_softmax(-1)
    sampled = logprobs
    if any(p.top_p < 1.0 or p.top_k or p.repetition_penalty != 1.0 for p in params):
        sampled = torch.stack([_truncate(logits[i], logprobs[i], p, seen[i]) for i, p in enumerate(params)])
    cumulative = sampled.exp().cumsum(-1, dtype=torch.float64)
    level = torch.tensor(noise, dtype=torch.float64, device=logits.device) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, level[:, None], right=True)[:, 0]
    greedy = torch.tensor([p.temperature == 0 for p in params], device=logits.device)
    ids = torch.where(greedy, sampled.argmax(-1), drawn.clamp(max=logits.shape[1] - 1))
    chosen = logprobs.gather(1, ids[:, None])[:, 0]
    return ids.tolist(), chosen.tolist()


def _truncate(logits: Tensor, logprobs: Tensor, params: SamplingParams, seen: Sequence[int]) -> Tensor:
    """Log-probs of one row after repetition penalty (CTRL, 1909.05858), top-k and nucleus (1904.09751)."""
    if params.repetition_penalty != 1.0 and seen:
        ids = torch.tensor(sorted(set(seen)), device=logits.device)
        scores = logits.clone()
        held = scores[ids]
        scores[ids] = torch.where(held > 0, held / params.repetition_penalty, held * params.repetition_penalty)
        logprobs = (scores / (params.temperature or 1.0)).log_softmax(-1)
    if params.top_k and params.top_k < logprobs.shape[0]:
        lowest = logprobs.topk(params.top_k).values[-1]
        logprobs = logprobs.masked_fill(logprobs < lowest, float("-inf"))
    if params.top_p < 1.0:
        ordered, order = logprobs.sort(descending=True, stable=True)
        mass = ordered.softmax(-1).cumsum(-1)
        outside = mass - ordered.softmax(-1) >= params.top_p
        logprobs = logprobs.index_fill(0, order[outside], float("-inf"))
    return logprobs
