"""Which scenarios rest, because their groups taught nothing lately, and are not solved.

Invariant: what a step draws is a function of seed, position and the counts here, which are saved. No scenario is left
out for good: each has its turn in every other round. A solved one never rests: what is not asked is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.scenario import Scenario
from ..core.trajectory import TrajectoryGroup
from .order import SeededOrder

FLAT_GROUPS = 3
"""Groups in a row without a difference after which a scenario rests."""
ROUNDS = 2
"""Of so many rounds through the scenarios, one is without rest."""


class Curriculum:
    """Who rests.

    Args:
        solved: reward from which on equal groups are success; None if nobody knows it.

    Attributes:
        rests: whether scenarios do rest; what they teach is counted either way.
    """

    def __init__(self, solved: float | None = None) -> None:
        self.rests = False
        self._solved = solved
        self._flat: dict[str, int] = {}

    def note(self, groups: Iterable[TrajectoryGroup]) -> None:
        """Count how often in a row each scenario taught nothing that is still to be learned."""
        for group in groups:
            solved = self._solved is not None and all(reward >= self._solved for reward in group.rewards)
            teaches = group.teaches or solved
            self._flat[group.scenario_id] = 0 if teaches else self._flat.get(group.scenario_id, 0) + 1

    def draw(self, order: SeededOrder[Scenario], start: int, count: int) -> tuple[Sequence[Scenario], int]:
        """Scenarios from position `start` on, and the position after the last of them."""
        if not self.rests:
            return order.at(start, count), start + count
        chosen: list[Scenario] = []
        position = start
        while len(chosen) < count:
            (scenario,) = order.at(position, 1)
            everyone = position - start >= len(order)  # nobody is left who teaches
            if everyone or position // len(order) % ROUNDS == 0 or self._flat.get(scenario.id, 0) < FLAT_GROUPS:
                chosen.append(scenario)
            position += 1
        return chosen, position

    def state_dict(self) -> dict[str, Any]:
        """Counts by scenario."""
        return dict(self._flat)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._flat = {name: int(count) for name, count in state.items()}
