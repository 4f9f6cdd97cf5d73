"""One change of a setting, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ADJUSTMENTS = "adjustments"
"""Of the moves that followed a step, in its row of `metrics.jsonl`."""


@dataclass(frozen=True)
class Move:
    """Attributes: `step` after which it was made; `signal`, the rule's; the setting's values `before` and `after`."""

    step: int
    signal: str
    setting: str
    before: float
    after: float
    reason: str

    def __str__(self) -> str:
        change = f"{self.setting} {self.before:.4g} -> {self.after:.4g}"
        if self.setting == "curriculum":
            change = "scenarios that teach nothing rest"
        return f"adjusted after step {self.step}: {change}, because {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def told(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The moves in the rows of `metrics.jsonl`, one sentence each."""
    return [str(Move(**move)) for row in rows for move in row.get(ADJUSTMENTS, ())]
