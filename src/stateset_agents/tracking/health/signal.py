"""What a sign of health is: data, with one function that looks.

Invariant: a sign says what it looks at, from where on it is no longer fine, what that means and what to do. It is read
from the rows alone; what was not measured is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from .evidence import Evidence


class HealthStatus(StrEnum):
    """How a run went, or one sign of it."""

    HEALTHY = "HEALTHY"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    UNKNOWN = "UNKNOWN"
    """Nothing was trained or measured."""


@dataclass(frozen=True)
class Look:
    """What a sign shows.

    Attributes:
        value: the number.
        shown: the same for people.
        wrong: what is wrong, as a sentence without its full stop; None where it is fine.
        status: how bad that is; None is the sign's own severity.
        action: what helps; None is the sign's own action.
    """

    value: float | None
    shown: str
    wrong: str | None = None
    status: HealthStatus | None = None
    action: str | None = None


@dataclass(frozen=True)
class Reading:
    """A sign of one run.

    Attributes:
        name: of the sign.
        value: the number; None where it was not measured.
        shown: the same for people.
        status: HEALTHY, WARNING, CRITICAL, or UNKNOWN where it was not measured.
        sentence: what is wrong; where nothing is, what the sign tells.
        action: what helps; empty where nothing is wrong.
    """

    name: str
    value: float | None
    shown: str
    status: HealthStatus
    sentence: str
    action: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it is worth a line of its own."""
        return self.status in (HealthStatus.WARNING, HealthStatus.CRITICAL)

    @property
    def issue(self) -> str:
        """What is wrong and what helps, in one line."""
        return f"{self.sentence}: {self.action}"


@dataclass(frozen=True)
class Signal:
    """A sign of health.

    Attributes:
        name: for people.
        keys: of `metrics.jsonl`, that it looks at.
        limit: from where on it is no longer fine, in words.
        meaning: what it tells, in one sentence.
        action: what helps.
        severity: how bad it is.
        look: reads it; None where it was not measured.
    """

    name: str
    keys: tuple[str, ...]
    limit: str
    meaning: str
    action: str
    severity: HealthStatus
    look: Callable[[Evidence], Look | None]

    def read(self, evidence: Evidence) -> Reading:
        """The sign in a run."""
        found = self.look(evidence)
        if found is None:
            return Reading(self.name, None, "not measured", HealthStatus.UNKNOWN, self.meaning)
        if found.wrong is None:
            return Reading(self.name, found.value, found.shown, HealthStatus.HEALTHY, self.meaning)
        action = found.action or self.action
        return Reading(self.name, found.value, found.shown, found.status or self.severity, found.wrong, action)
