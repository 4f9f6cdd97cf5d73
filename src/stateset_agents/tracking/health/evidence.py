"""The rows of `metrics.jsonl` as the signs of health look at them.

Invariant: what a row does not hold, or holds as no finite number, is left out and never taken for 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..learning import Difference, Learning, difference, judge

NEAR_MAXIMUM = 0.95
"""Share of the attainable reward from which on little diversity is what success looks like."""
FEWEST_STEPS = 10
"""Before that many steps nothing is said of a trend or of outliers: it would be the luck of a few conversations."""
FEWEST_IN_A_WINDOW = 4
"""Values in a third of the run that a trend is judged by: with fewer the interval is as wide as the values go."""


@dataclass
class Evidence:
    """What is known of a run.

    Attributes:
        rows: of `metrics.jsonl`.
        attainable: the highest reward that an episode can get, if known.
        known: whether the run learns, where somebody has judged that from more rows than these.
    """

    rows: Sequence[Mapping[str, Any]]
    attainable: float | None = None
    known: Learning | None = None
    _columns: dict[str, list[float]] = field(default_factory=dict)

    def numbers(self, key: str) -> list[float]:
        """What was measured, in order."""
        if key not in self._columns:
            self._columns[key] = _numbers(self.rows, key)
        return self._columns[key]

    def pairs(self, key: str, other: str, *, without: float) -> list[tuple[float, float]]:
        """What was measured with what another key says of the same step, or `without` it."""
        found = [(_number(row.get(key)), _number(row.get(other))) for row in self.rows]
        return [(value, without if said is None else said) for value, said in found if value is not None]

    def mean(self, key: str) -> float | None:
        """Over all steps that measured it."""
        return _mean(self.numbers(key))

    def total(self, key: str) -> float:
        """Sum over the steps."""
        return sum(self.numbers(key))

    def start(self, key: str) -> float | None:
        """Mean over the first tenth of the steps."""
        return _mean(_numbers(self.rows[: len(end_window(self.rows))], key))

    def end(self, key: str) -> float | None:
        """Mean over the last tenth of the steps."""
        return _mean(_numbers(end_window(self.rows), key))

    def trend(self, values: Sequence[float]) -> Difference | None:
        """The last third of some values against the first, with its interval; None where there are too few."""
        size = len(values) // 3
        return difference(values[:size], values[-size:]) if size >= FEWEST_IN_A_WINDOW else None

    @property
    def enough(self) -> bool:
        """Whether there are steps enough to speak of the run and not of luck."""
        return len(self.rows) >= FEWEST_STEPS

    @property
    def scale(self) -> float:
        """What a reward is a share of."""
        return self.attainable if self.attainable is not None and self.attainable > 0 else 1.0

    @property
    def solved(self) -> bool:
        """Whether the reward is near its maximum."""
        end = self.end("reward_mean")
        return self.attainable is not None and end is not None and end >= NEAR_MAXIMUM * self.attainable

    @property
    def read(self) -> bool:
        """Whether the conversations are read from a file: nobody samples them."""
        return bool(self.rows) and all(row.get("sampled_tokens") == 0 for row in self.rows)

    @cached_property
    def learning(self) -> Learning:
        """Whether the reward rises, or the loss falls where there is no reward."""
        return self.known or judge(self.numbers("reward_mean"), self.numbers("loss"))

    @cached_property
    def evaluations(self) -> list[tuple[int, float, float, float]]:
        """Step, mean reward and both ends of its interval, of each evaluation that has them."""
        keys = ("step", "eval_reward_mean", "eval_reward_low", "eval_reward_high")
        found = [[_number(row.get(key)) for key in keys] for row in self.rows]
        return [(int(s), m, low, high) for s, m, low, high in found if None not in (s, m, low, high)]  # type: ignore[arg-type,misc]


def end_window(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The last tenth of the steps, at least one: what "final" means in a report."""
    return rows[-math.ceil(len(rows) / 10) :] if rows else rows


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [number for row in rows if (number := _number(row.get(key))) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
