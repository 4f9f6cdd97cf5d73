"""The engine seam: token ids in, token ids and log-probs out.

Invariant: **a reply depends only on its key, its own tokens and the weights.** Sampling noise is a function of
`(key, position)`; the shapes in which a row is computed are a function of the row alone. Alone, in any batch, in any
order, with or without a kept cache: same ids, same log-probs, to the bit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..core.outcome import StopReason


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample one reply.

    Attributes:
        temperature: logits are divided by it; 0 means greedy (log-probs are then those of temperature 1).
        max_new_tokens: upper bound on the reply's length in tokens, at least 1.
        top_p, top_k, repetition_penalty: truncation for evaluation and serving; 1.0, 0 and 1.0 switch them off.
            Recorded log-probs are always those of the untruncated distribution at `temperature`.
        stop_ids: token ids that end the reply (and belong to it).
    """

    temperature: float = 1.0
    max_new_tokens: int = 256
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number >= 0, not {self.temperature}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, not {self.max_new_tokens}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0 (0 switches it off), not {self.top_k}")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty must be a finite number > 0, not {self.repetition_penalty}")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to generate.

    Attributes:
        key: opaque; all sampling noise of this reply derives from it.
        prompt_ids: every token the reply is conditioned on.
        sampled_spans: the `[start, end)` ranges of `prompt_ids` that this engine sampled earlier in the same
            session. They say along which path the cache was computed, so that a lost cache is rebuilt bit for bit.
        params: how to sample.
        session: name under which the engine keeps the row's cache for the next turn; None keeps nothing.
    """

    key: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    sampled_spans: tuple[tuple[int, int], ...] = ()
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated reply.

    Attributes:
        ids: sampled ids, the end-of-turn id included when it was sampled.
        logprobs: natural-log probability of each id at the request's temperature, untruncated.
        stop_reason: why it ended.
        version: version of the weights that sampled it.
        forwarded_tokens: tokens of this row that went through the model for this reply (not those found in a cache).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop_reason: StopReason
    version: int
    forwarded_tokens: int = 0


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One step of a streamed reply; the last one carries the whole `Generation`."""

    id: int
    logprob: float
    final: Generation | None = None


@runtime_checkable
class Engine(Protocol):
    """Anything that generates replies. Safe to call from many tasks at once; batches inside; never blocks the loop."""

    version: int
    """Version of the weights in use; the trainer raises it after each update."""

    async def generate(self, request: GenerationRequest) -> Generation:
        """Generate one reply. Cancelling the task frees its place in the batch."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[GeneratedToken]:
        """Generate one reply token by token."""
        ...

    def release(self, session: str) -> None:
        """Forget the kept cache of a session. Unknown sessions are fine."""
        ...

    async def aclose(self) -> None:
        """Stop the worker and free memory. Waiting requests are cancelled."""
        ...
