"""Everything that an evaluation of a trained agent says, for whoever prints, saves or draws it.

Invariant: it holds results and words, and computes no number of its own: text, JSON and page all show what the same
`EvaluationResult` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .beside import BESIDE
from .compare import Comparison
from .result import EvaluationResult
from .statistics import PairedDifference, paired_difference

METRICS = ("reward", "length", "success_rate", *BESIDE)
"""What can be asked for by name."""


@dataclass(frozen=True)
class Floor:
    """An agent that has learned nothing, on the same scenarios.

    Attributes:
        name: "do nothing" or "untrained".
        about: who it is, in words.
        result: what it scored; None where it was not measured.
        why_not: the reason, then.
    """

    name: str
    about: str
    result: EvaluationResult | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Report:
    """An evaluation with what it is to be read beside.

    Attributes:
        checkpoint: as the user named it.
        step: of the run, after which it was saved; None where it does not say.
        result: what was measured.
        planned: how many episodes of it were asked for.
        metrics: what to show, of `METRICS`.
        floors: agents that have learned nothing.
        comparison: with another checkpoint; that one is its `before`.
        compared_with: that checkpoint, as the user named it.
        notes: what a reader should know.
        interrupted: whether somebody stopped it; the numbers are those of the episodes that were over by then.
        failure: what ended it before everything was played; the numbers are those of what was.
    """

    checkpoint: str
    step: int | None
    result: EvaluationResult
    planned: int
    metrics: tuple[str, ...] = METRICS
    floors: tuple[Floor, ...] = ()
    comparison: Comparison | None = None
    compared_with: str | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    failure: Exception | None = None

    @property
    def measured_floors(self) -> Mapping[str, EvaluationResult]:
        """The floors that were measured, by name."""
        return {floor.name: floor.result for floor in self.floors if floor.result is not None}

    def above(self, floor: Floor) -> PairedDifference | None:
        """How much more reward than a floor it got; None where there is nothing to compare."""
        if floor.result is None:
            return None
        try:
            return paired_difference(floor.result.rewards, self.result.rewards)
        except ValueError:  # no scenario was scored with both
            return None

    def to_dict(self) -> dict[str, Any]:
        """JSON form, conversations included."""
        compared = None
        if self.comparison is not None:
            compared = {"checkpoint": self.compared_with, **self.comparison.to_dict()}
            del compared["after"]  # it is this evaluation
        return {
            "checkpoint": self.checkpoint,
            "step": self.step,
            "interrupted": self.interrupted,
            "failure": None if self.failure is None else f"{type(self.failure).__name__}: {self.failure}",
            "planned_episodes": self.planned,
            "metrics": list(self.metrics),
            "notes": list(self.notes),
            **self.result.to_dict(),
            "floors": {
                floor.name: {
                    "about": floor.about,
                    "why_not": floor.why_not or None,
                    "result": None if floor.result is None else floor.result.to_dict(),
                    "reward_above": above.to_dict() if (above := self.above(floor)) else None,
                }
                for floor in self.floors
            },
            "comparison": compared,
            "episodes": self.result.to_dict(episodes=True)["episodes"],
        }
