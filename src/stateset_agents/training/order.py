"""Which scenarios a step plays.

Invariant: a function of seed and position alone. Every scenario is played once before any is played again, in another
order each time round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..core.scenario import Scenario


class ScenarioOrder:
    """An endless sequence of scenarios.

    Args:
        scenarios: at least one.
        seed: of the orders.

    Raises:
        ValueError: there are no scenarios.
    """

    def __init__(self, scenarios: Sequence[Scenario], seed: int) -> None:
        if not scenarios:
            raise ValueError("there are no scenarios to train on")
        self._scenarios = list(scenarios)
        self._seed = seed

    def at(self, start: int, count: int) -> list[Scenario]:
        """The scenarios at positions `start` to `start + count - 1`."""
        return [self._one(position) for position in range(start, start + count)]

    def _one(self, position: int) -> Scenario:
        round_number, place = divmod(position, len(self._scenarios))
        order = list(range(len(self._scenarios)))
        random.Random(f"{self._seed}/{round_number}").shuffle(order)
        return self._scenarios[order[place]]
