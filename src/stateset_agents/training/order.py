"""Which scenarios a step plays, or which records it reads.

Invariant: a function of seed and position alone. Every one has its turn before any has another, in another order each
time round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class SeededOrder(Generic[T]):
    """An endless sequence of scenarios or records.

    Args:
        items: at least one.
        seed: of the orders.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, items: Sequence[T], seed: int) -> None:
        if not items:
            raise ValueError("there are no scenarios to train on")
        self._items = list(items)
        self._seed = seed
        self._round: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Of one round."""
        return len(self._items)

    def at(self, start: int, count: int) -> list[T]:
        """Those at positions `start` to `start + count - 1`."""
        return [self._one(position) for position in range(start, start + count)]

    def _one(self, position: int) -> T:
        number, place = divmod(position, len(self._items))
        if number != self._round[0]:
            order = list(range(len(self._items)))
            random.Random(f"{self._seed}/{number}").shuffle(order)
            self._round = number, order
        return self._items[self._round[1][place]]
