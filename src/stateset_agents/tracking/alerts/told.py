"""What was told of, and whether something is to be told again.

Invariant: `alerts.jsonl` has every alert that was told, and nothing is told that stands there already: a run that was
killed makes steps again, and with them what fires. An alert is told when it begins and when it is over; in between and
for some minutes after it, its rule is silent. What is still so when those are over is told then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ...core.secrets import Redactor
from ..jsonl import JsonlLog, read_jsonl
from ..status import timestamp
from .rules import Level

RUN = "run"
"""The alert of a run that ended before its end."""


@dataclass(frozen=True)
class Alert:
    """One line of `alerts.jsonl`, and what a webhook gets.

    Attributes:
        timestamp: when it was told, ISO 8601, UTC.
        run: the run folder's name.
        alert: name of the rule.
        state: "firing", or "resolved".
        level: how bad it is, or was.
        step: the last one that was made.
        text: what is so.
    """

    timestamp: str
    run: str
    alert: str
    state: Literal["firing", "resolved"]
    level: Level
    step: int
    text: str


@dataclass
class _Standing:
    """Where a rule stands: whether the last word about it was that it fires, and when that was."""

    open: bool = False
    step: int = -1
    fired: float = float("-inf")


class Told:
    """The record of a run's alerts.

    Args:
        path: of the record.
        run: the run folder's name.
        resumes: whether an earlier part of this run is told of there; else what stands there is only added to.
        shared: whether other runs write there too, so that this one's lines are those with its name.
        cool_down: seconds after the beginning of an alert in which its rule is silent.
        send: gets each alert once it is written.
        clock: seconds, from any start.

    Raises:
        OSError: from every method, when the disk or the folder refuses.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        *,
        resumes: bool,
        shared: bool,
        cool_down: float,
        send: Callable[[Alert], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._cool_down, self._send, self._clock = run, cool_down, send, clock
        self._standing: dict[str, _Standing] = {}
        self._redactor = Redactor.from_environment()
        if resumes:
            for row in read_jsonl(path):
                if not shared or row.get("run") == run:
                    self._remember(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._log = JsonlLog(path)

    def rule(self, name: str, level: Level, step: int, text: str, *, fires: bool) -> None:
        """Say where a rule stands after a step; tell of it if that is news.

        Args:
            name: of the rule.
            level: of the rule.
            step: the last one that was made. What was told up to it, by an earlier part of the run, is not told again.
            text: what is so.
            fires: whether the rule fires.
        """
        known = self._standing.setdefault(name, _Standing())
        if step > known.step:
            self.event(name, level, step, text, fires=fires)

    def event(self, name: str, level: Level, step: int, text: str, *, fires: bool) -> None:
        """The same for what no step decides: a service that is down, a run that ends, which nobody can tell later."""
        known = self._standing.setdefault(name, _Standing())
        cooling = name != RUN and self._clock() - known.fired < self._cool_down
        if fires is known.open or (fires and cooling):
            return
        known.open, known.step = fires, step
        if fires:
            known.fired = self._clock()
        text = self._redactor(text)  # of an error of somebody's code, which may hold anything
        alert = Alert(timestamp(), self._run, name, "firing" if fires else "resolved", level, step, text)
        self._log.append(asdict(alert))
        self._send(alert)

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    def _remember(self, row: dict[str, Any]) -> None:
        try:
            name, fires, step = str(row["alert"]), row["state"] == "firing", int(row["step"])
            ago = time.time() - datetime.fromisoformat(row["timestamp"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return  # no line of ours
        known = self._standing.setdefault(name, _Standing())
        known.open, known.step = fires, step
        if fires:
            known.fired = self._clock() - max(0.0, ago)
