"""When to stop before the planned end.

Invariant: counts are in evaluations and steps, both saved, so that a resumed run stops where an undisturbed one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FLAT_STEPS_WARN = 3
FLAT_STEPS_STOP = 10


class EarlyStopping:
    """Stops when evaluations no longer improve.

    Args:
        patience: evaluations without a new best after which `should_stop` is true; None never stops.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best = -math.inf
        self.best_step = 0
        self.without_improvement = 0

    def update(self, step: int, score: float) -> bool:
        """Take note of an evaluation. Returns whether it is the best so far."""
        if score > self.best:
            self.best, self.best_step, self.without_improvement = score, step, 0
            return True
        self.without_improvement += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.without_improvement >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Best score and counts; a best that does not exist yet is null."""
        best = None if self.best == -math.inf else self.best
        return {"best": best, "best_step": self.best_step, "without_improvement": self.without_improvement}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.best_step = int(state["best_step"])
        self.without_improvement = int(state["without_improvement"])


class FlatSteps:
    """Counts steps in a row in which no group had anything to learn from."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, updated: bool) -> None:
        """Take note of a step."""
        self.count = 0 if updated else self.count + 1

    @property
    def should_warn(self) -> bool:
        """Once, when it begins to look wrong."""
        return self.count == FLAT_STEPS_WARN

    @property
    def should_stop(self) -> bool:
        """When going on is a waste of time."""
        return self.count >= FLAT_STEPS_STOP
