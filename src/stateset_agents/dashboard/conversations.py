"""Where each conversation lies in trajectories.jsonl, and the little of it that is needed to find it.

Invariant: what was said stays in the file until somebody asks for that very group; the index holds a few numbers and
names of each conversation. A line that is no conversation is counted and left out.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .follow import Follower
from .metrics import Row, parse
from .plain_files import open_plain

MOST_SAMPLES = 256
"""Conversations of a group that are shown at once."""
_MOST_BYTES = 32 * 1024 * 1024
"""Of a group that is shown."""
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Attributes:
        start, size: where it lies, in bytes.
        step, phase, group: which group it belongs to; the phase is "train" or "eval".
        scenario, outcome: what was played, and how it ended.
        reward: None if it was not scored.
        success: None if nothing states what that is.
    """

    start: int
    size: int
    step: int
    phase: str
    group: int
    scenario: str
    outcome: str
    reward: float | None
    success: bool | None


@dataclass(frozen=True)
class Wanted:
    """Which conversations to list; None is any.

    Attributes:
        step, phase, scenario, outcome: as in `Entry`; the outcome "success" or "no success" asks for `success`.
        low, high: of the reward, both ends included.
    """

    step: int | None = None
    phase: str | None = None
    scenario: str | None = None
    outcome: str | None = None
    low: float | None = None
    high: float | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether a conversation is one of them."""
        if self.step is not None and entry.step != self.step:
            return False
        if self.phase is not None and entry.phase != self.phase:
            return False
        if self.scenario is not None and entry.scenario != self.scenario:
            return False
        if self.outcome in ("success", "no success"):
            if entry.success is not (self.outcome == "success"):
                return False
        elif self.outcome is not None and entry.outcome != self.outcome:
            return False
        if self.low is None and self.high is None:
            return True
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return entry.reward is not None and low <= entry.reward <= high


GroupName = tuple[int, str, int]
"""Step, phase and number of a group."""


class ConversationLog:
    """The index of one run's conversations, brought up to date piece by piece.

    Args:
        path: of `trajectories.jsonl`; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._follower = Follower(path)
        self.version = 0
        self._begin()

    def _begin(self) -> None:
        self.entries = 0
        """Conversations in the index."""
        self.skipped = 0
        """Lines that are no conversation."""
        self.scenarios: dict[str, int] = {}
        """How many conversations there are of each scenario."""
        self.outcomes: dict[str, int] = {}
        self._groups: dict[GroupName, list[Entry]] = {}

    @property
    def share(self) -> float:
        """How much of the file was read."""
        whole = self._follower.position + self._follower.left
        return self._follower.position / whole if whole else 1.0

    def update(self, seconds: float = 0.25) -> bool:
        """Read what is new, for about so long.

        Returns:
            Whether everything that is there was read.
        """
        end = time.monotonic() + seconds
        while True:
            restarted, lines = self._follower.read()
            if restarted:
                self._begin()
                self.version += 1
            if not lines:
                return True
            self.version += 1
            for start, line in lines:
                entry = _entry(start, line)
                if entry is None:
                    self.skipped += 1
                    continue
                self.entries += 1
                self.scenarios[entry.scenario] = self.scenarios.get(entry.scenario, 0) + 1
                self.outcomes[entry.outcome] = self.outcomes.get(entry.outcome, 0) + 1
                self._groups.setdefault((entry.step, entry.phase, entry.group), []).append(entry)
            if time.monotonic() >= end:
                return not self._follower.left

    def groups(self, wanted: Wanted) -> Iterator[tuple[GroupName, list[Entry]]]:
        """Groups with a conversation that is wanted, in the order of the file, with all that they hold."""
        return ((name, group) for name, group in self._groups.items() if any(map(wanted.holds, group)))

    def group(self, name: GroupName) -> list[Row]:
        """The conversations of a group as they were written, read from the file; empty if there is no such group."""
        rows: list[Row] = []
        entries = self._groups.get(name, [])[:MOST_SAMPLES]
        if not entries:
            return []
        with open_plain(self._follower.path) as file:
            left = _MOST_BYTES
            for entry in entries:
                left -= entry.size
                if left < 0 and rows:
                    break
                file.seek(entry.start)
                row = parse(file.read(entry.size))
                if row is not None:
                    rows.append(row)
        return rows


def _entry(start: int, line: bytes) -> Entry | None:
    row = parse(line)
    if row is None or type(row.get("step")) is not int or not isinstance(row.get("turns"), list):
        return None
    group, reward, success = row.get("group"), row.get("reward"), row.get("success")
    return Entry(
        start,
        len(line),
        row["step"],
        _name(row.get("phase", "train")),
        group if type(group) is int else 0,
        _name(row.get("scenario_id", "")),
        _name(row.get("outcome", "")),
        float(reward) if isinstance(reward, int | float) and abs(reward) < 1e300 else None,
        success if isinstance(success, bool) else None,
    )


def _name(value: Any) -> str:
    """Interned, as the same few names stand in every line; half a character, which no address can hold, is "?"."""
    return sys.intern(str(value)[:_LONGEST_NAME].encode("utf-8", "replace").decode())
