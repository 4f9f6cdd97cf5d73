"""One request on its way, and the path along which its tokens are computed.

Invariant: `pieces_of` depends on a row's own tokens alone, and a border of its pieces lies at the end of every prompt
that the row ever had. So a row that is rebuilt from nothing goes through the very pieces through which it came.

Tokens that a row sampled were computed one at a time, tokens of a prompt in pieces; the difference shows in the last
bits. That is why ids alone do not name a cache content, and a `Path` does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .base import GeneratedToken, GenerationRequest
from .cache import Path, Slot, Spans

PIECES = (64, 256)
"""Widths in tokens of the passes that read prompts."""

Item = GeneratedToken | BaseException
"""A sampled token, with the last one the whole reply; or why there is none."""


@dataclass(eq=False)
class Row:
    """One request on its way."""

    request: GenerationRequest
    loop: asyncio.AbstractEventLoop
    """Where it is waited for, and `deliver` is called."""
    deliver: Callable[[Item], None]
    streamed: bool
    """Whether every token is waited for, or the last one alone."""
    slot: Slot | None = None
    cached: int = 0
    """Tokens of the row whose keys and values are in the slot."""
    forwarded: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    hidden: Tensor | None = None
    """Last hidden state of the newest computed token, when the next token can be sampled from it."""
    plan: deque[tuple[int, int]] = field(default_factory=deque)
    """Pieces `[start, end)` of the prompt that are still to be computed."""
    delivered: int = 0
    """Sampled tokens that were handed out. A row that begins again samples them again, and they stay the same."""
    cancelled: bool = False
    keep: bool = True
    """Whether its session still wants the cache when the reply is finished."""

    def begin_again(self) -> None:
        """Forget all that was computed; the cache has forgotten it already."""
        self.slot, self.hidden = None, None
        self.cached = self.forwarded = 0
        self.ids.clear()
        self.logprobs.clear()
        self.plan.clear()

    @property
    def path(self) -> Path:
        """Of the prompt."""
        return self.request.prompt_ids, self.request.sampled_spans

    @property
    def path_with_reply(self) -> Path:
        """Of everything up to the newest sampled token."""
        prompt, spans = self.path
        begin = len(prompt)
        return (*prompt, *self.ids), (*spans, (begin, begin + len(self.ids)))

    @property
    def tokens(self) -> int:
        """Length of prompt and reply so far."""
        return len(self.request.prompt_ids) + len(self.ids)

    @property
    def held(self) -> Slot:
        """The slot of a row that has one, as every row in the batch does."""
        assert self.slot is not None  # noqa: S101 - a row in the batch was placed
        return self.slot

    @property
    def piece(self) -> int:
        """Tokens of the next piece of the prompt; 0 when it was read."""
        if not self.plan:
            return 0
        start, end = self.plan[0]
        return end - start

    @property
    def replays(self) -> bool:
        """Whether the next token of the prompt was sampled once and is computed as it was then: in a single step."""
        if not self.plan:
            return False
        start = self.plan[0][0]
        return any(begin <= start < end for begin, end in stepwise(self.request.sampled_spans))


def stepwise(spans: Spans) -> list[tuple[int, int]]:
    """Ranges computed one token at a time: a reply's tokens but its last, which goes with what follows it."""
    return [(start, end - 1) for start, end in spans]


def pieces_of(begin: int, end: int, spans: Spans) -> list[tuple[int, int]]:
    """How the tokens `[begin, end)` of a row are computed; `begin` must be the border of a piece.

    Args:
        begin, end: range of tokens to compute.
        spans: ranges of the row that were sampled.

    Returns:
        Ranges in order; those inside a sampled span hold one token, the others at most 256.
    """
    pieces: list[tuple[int, int]] = []
    position = begin
    for start, stop in [*stepwise(spans), (end, end)]:
        while position < min(start, end):
            width = min(PIECES[-1], start - position, end - position)
            pieces.append((position, position + width))
            position += width
        while position < min(stop, end):
            pieces.append((position, position + 1))
            position += 1
    return pieces


def begins_with(path: Path, kept: Path) -> bool:
    """Whether `kept` is, token by token and step by step, the beginning of `path`."""
    ids, spans = path
    kept_ids, kept_spans = kept
    return (
        ids[: len(kept_ids)] == kept_ids
        and spans[: len(kept_spans)] == kept_spans
        and all(start >= len(kept_ids) for start, _ in spans[len(kept_spans) :])
    )
