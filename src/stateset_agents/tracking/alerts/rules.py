"""What is asked of a run's metrics, and what the answer is after each step.

Invariant: whether a rule fires is a function of the rows that it was shown, in their order. A row without the metric
says nothing: it neither begins nor ends anything, but for a rule that asks whether the metric is there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ...config.alerts import AlertRule
from ..health import HealthStatus, assess

Row = Mapping[str, Any]
Level = Literal["warning", "critical"]

HEALTH_STEPS = 50
"""The last steps that health is judged by: an alert tells how a run is, not how it once was."""
CRITICAL_STEPS = 3
"""Steps in a row that health must be critical for."""
UNLEARNED_STEPS = 5
"""Steps in a row that may teach nothing."""

Question = Callable[[Row, bool], tuple[bool | None, str]]
"""Asked of a row, and told whether the rule fires: is it so (None: the row does not say), and what is so."""


class Rule:
    """A question with the number of steps that it must be answered with yes to.

    Args:
        name: what messages call it.
        question: of each row.
        steps: in a row.
        level: how bad it is.
    """

    def __init__(self, name: str, question: Question, steps: int = 1, level: Level = "warning") -> None:
        self.name, self.level = name, level
        self._question, self._steps = question, steps
        self._count = 0
        self.since: int | None = None
        """The step at which it began to fire; None while it does not."""
        self.text = ""
        """What is so."""

    def look(self, row: Row) -> bool:
        """Take note of a row. Returns whether it fires."""
        holds, text = self._question(row, self.since is not None)
        if holds is None:
            return self.since is not None
        self.text = text
        self._count = self._count + 1 if holds else 0
        if not holds:
            self.since = None
        elif self.since is None and self._count >= self._steps:
            self.since = int(row["step"])
        return self.since is not None

    def remember(self, rows: Sequence[Row]) -> None:
        """Take note of the rows of an earlier part of the run, of which the state is loaded already."""
        if isinstance(self._question, _Health):
            self._question.rows.extend(rows)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"count": self._count, "since": self.since, "text": self.text}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._count, self.since, self.text = int(state["count"]), state["since"], str(state["text"])


def rule_of(rule: AlertRule) -> Rule | None:
    """The rule of a config; None for one that asks nothing of rows."""
    metric = rule.metric
    if metric is None:
        return None
    if rule.missing_steps is not None:
        return Rule(rule.title, _missing(metric), rule.missing_steps)
    return Rule(rule.title, _beyond(metric, rule.above, rule.below, rule.clear), rule.steps or 1)


def built_in_rules(attainable: float | None) -> list[Rule]:
    """What rows tell of every run.

    Args:
        attainable: the highest reward that an episode can get, if known.
    """
    return [
        Rule("health", _Health(attainable), CRITICAL_STEPS, "critical"),
        Rule("nothing learned", _unlearned, UNLEARNED_STEPS),
    ]


def measured(row: Row, metric: str) -> float | None:
    """A row's number; None where it has none, or one that is not finite."""
    value = row.get(metric)
    number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if number and value is not None else None


def _beyond(metric: str, above: float | None, below: float | None, clear: float | None) -> Question:
    def ask(row: Row, firing: bool) -> tuple[bool | None, str]:
        value = measured(row, metric)
        if value is None:
            return None, ""
        if above is not None:
            limit, holds = above, value > (clear if firing and clear is not None else above)
        else:
            limit = below if below is not None else math.nan
            holds = value < (clear if firing and clear is not None else limit)
        return holds, f"{metric} is {value:.4g}, limit {limit:g}"

    return ask


def _missing(metric: str) -> Question:
    def ask(row: Row, firing: bool) -> tuple[bool | None, str]:
        there = measured(row, metric) is not None
        return not there, f"{metric} is measured again" if there else f"{metric} is not measured"

    return ask


def _unlearned(row: Row, firing: bool) -> tuple[bool | None, str]:
    if "updated" not in row:
        return None, ""  # nothing is trained
    learned = bool(row["updated"])
    return not learned, "steps teach something again" if learned else "no group had different rewards to learn from"


class _Health:
    """Whether the last steps, taken together, are critical."""

    def __init__(self, attainable: float | None) -> None:
        self._attainable = attainable
        self.rows: deque[Row] = deque(maxlen=HEALTH_STEPS)

    def __call__(self, row: Row, firing: bool) -> tuple[bool | None, str]:
        self.rows.append(row)
        health = assess(list(self.rows), self._attainable)
        critical = health.status is HealthStatus.CRITICAL
        return critical, health.issues[0] if critical else f"health is {health.status}"
