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

BLOCK = 256
"""Ids whose probabilities are added up before the ones around the drawn id are looked at one by one."""

SMALLEST_TEMPERATURE = 1e-30
"""Colder ones leave the range of float32 and are computed as this one: all mass is on the largest logit anyway."""


def uniform(key: str, position: int) -> float:
    """A number in (0, 1) made from a hash of key and position: the middle of one of 2**52 equal parts."""
    digest = hashlib.blake2b(f"{key}\0{position}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "little") >> 12) + 0.5) * 2.0**-52


def choose(
    logits: Tensor, params: Sequence[SamplingParams], noise: Sequence[float], seen: Sequence[Sequence[int]]
) -> tuple[list[int], list[float]]:
    """Sample one token for each row by inverting the cumulative distribution.

    Args:
        logits: (rows, vocabulary), float32.
        params: how to sample each row.
        noise: a number in [0, 1] for each row.
        seen: ids that the repetition penalty looks at, for each row.

    Returns:
        Ids, and their natural-log probabilities in the untruncated distribution at the row's temperature
        (temperature 1 for a greedy row). A token of probability 0 is never drawn.
    """
    temperature = torch.tensor([_temperature(p) for p in params], device=logits.device)
    logprobs = (logits / temperature[:, None]).log_softmax(-1)
    scores, sampled = logits, logprobs
    if any(p.top_p < 1.0 or p.top_k or p.repetition_penalty != 1.0 for p in params):
        scores = torch.stack([_penalise(logits[i], p, seen[i]) for i, p in enumerate(params)])
        cooled = (scores / temperature[:, None]).log_softmax(-1)
        sampled = torch.stack([_truncate(cooled[i], p) for i, p in enumerate(params)])
    drawn = _invert(sampled.exp(), torch.tensor(noise, dtype=torch.float64, device=logits.device))
    greedy = [p.temperature == 0 for p in params]
    if any(greedy):
        drawn = torch.where(torch.tensor(greedy, device=logits.device), scores.argmax(-1), drawn)
    ids = drawn.clamp(max=logits.shape[1] - 1)  # logits that are not numbers end up beyond the last id
    chosen = logprobs.gather(1, ids[:, None])[:, 0]
    return ids.tolist(), chosen.tolist()


def _invert(mass: Tensor, noise: Tensor) -> Tensor:
    """The first id of each row at which the cumulative mass exceeds `noise` x (all of it).

    Blocks are summed first, so that sums in double precision run over one block and not over the vocabulary.
    """
    rows, vocabulary = mass.shape
    short = -vocabulary % BLOCK
    blocks = (torch.nn.functional.pad(mass, (0, short)) if short else mass).view(rows, -1, BLOCK)
    up_to = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    level = (noise * up_to[:, -1])[:, None]
    # Beyond the last block with mass, noise that rounds to 1 would find nothing.
    last = torch.searchsorted(up_to, up_to[:, -1:].contiguous())
    block = torch.minimum(torch.searchsorted(up_to, level, right=True), last).clamp(max=blocks.shape[1] - 1)
    before = torch.where(block > 0, up_to.gather(1, (block - 1).clamp(min=0)), 0.0)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(-1, dtype=torch.float64) + before
    drawn = torch.searchsorted(within, level, right=True)
    last = torch.searchsorted(within, within[:, -1:].contiguous())
    return (block * BLOCK + torch.minimum(drawn, last))[:, 0]


def _temperature(params: SamplingParams) -> float:
    return max(params.temperature, SMALLEST_TEMPERATURE) if params.temperature else 1.0


def _penalise(logits: Tensor, params: SamplingParams, seen: Sequence[int]) -> Tensor:
    """Logits of one row after the repetition penalty (CTRL, 1909.05858)."""
    if params.repetition_penalty == 1.0 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    held = logits[ids]
    penalised = torch.where(held > 0, held / params.repetition_penalty, held * params.repetition_penalty)
    return logits.index_copy(0, ids, penalised)


def _truncate(logprobs: Tensor, params: SamplingParams) -> Tensor:
    """Log-probs of one row after top-k and nucleus (1904.09751)."""
    if params.top_k and params.top_k < logprobs.shape[0]:
        lowest = logprobs.topk(params.top_k).values[-1]
        logprobs = logprobs.masked_fill(logprobs < lowest, float("-inf"))
    if params.top_p < 1.0:
        ordered, order = logprobs.sort(descending=True, stable=True)
        mass = ordered.softmax(-1).cumsum(-1)
        outside = mass - ordered.softmax(-1) >= params.top_p
        logprobs = logprobs.index_fill(0, order[outside], float("-inf"))
    return logprobs
