"""metrics.jsonl as columns of numbers, and where each step lies in the file.

Invariant: a row is in the columns exactly if it is a JSON object with a "step" above that of the row before it; other
lines are counted and left out. A number that is missing or null is NaN, never 0. Memory is four bytes a number.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .follow import CHUNK, Follower
from .plain_files import open_plain

Row = dict[str, Any]
Numbers = NDArray[np.floating[Any]]

MOST_COLUMNS = 256
SAMPLED_ROWS = 1200
"""Rows that are looked at while a long log is still being read."""
LONGEST_KEY = 200
_ASKED_SECONDS = 0.5
_SHORT_LOG = 6 * CHUNK
_LONGEST_ROW = 65536
"""Where a log is only looked at here and there, a line that is longer is passed over."""
_FIRST_SIZE = 1024
_LARGEST = 3e38
_PLAIN = {float, int, bool, type(None)}


class MetricLog:
    """The index of one run's metrics, brought up to date piece by piece.

    Args:
        path: of `metrics.jsonl`; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._follower = Follower(path)
        self._begin()

    def _begin(self) -> None:
        self.rows = 0
        """Steps in the columns."""
        self.skipped = 0
        """Lines that are no row."""
        self.version = 0
        """Changes whenever the columns do."""
        self._steps = np.zeros(_FIRST_SIZE, np.int64)
        self._places = np.zeros((_FIRST_SIZE, 2), np.int64)
        self._columns: dict[str, Numbers] = {}

    @classmethod
    def of(cls, rows: Sequence[Row]) -> MetricLog:
        """The columns of some rows that are at hand."""
        log = cls(Path(os.devnull))
        log._add(rows, [(0, 0)] * len(rows))
        return log

    def update(self, seconds: float | None = None) -> bool:
        """Read what is new.

        Args:
            seconds: for about so long; None is until a short log is read, and one piece of a long one: whoever asks
                waits for an answer, and a page that listens brings the rest.

        Returns:
            Whether everything that is there was read.
        """
        if seconds is None:
            seconds = _ASKED_SECONDS if self._follower.left <= _SHORT_LOG else 0.0
        end = time.monotonic() + seconds
        while True:
            restarted, lines = self._follower.read()
            if restarted:
                version = self.version
                self._begin()
                self.version = version + 1
            if not lines:
                return True
            self._take(lines)
            if time.monotonic() >= end:
                return not self._follower.left

    @property
    def share(self) -> float:
        """How much of the file was read."""
        whole = self._follower.position + self._follower.left
        return self._follower.position / whole if whole else 1.0

    @property
    def steps(self) -> NDArray[np.int64]:
        """The step of each row, increasing."""
        return self._steps[: self.rows]

    @property
    def keys(self) -> list[str]:
        """Names of the columns, in the order in which they first appeared."""
        return list(self._columns)

    def column(self, key: str) -> Numbers:
        """One number for each row; NaN where it was not measured, or nobody knows the key."""
        column = self._columns.get(key)
        return np.full(self.rows, np.nan, np.float32) if column is None else column[: self.rows]

    def read_rows(self, most: int) -> list[Row]:
        """At most so many whole rows, evenly spaced, the last one among them; read from the file."""
        if not self.rows:
            return []
        return self._read(np.unique(np.linspace(0, self.rows - 1, min(most, self.rows)).round().astype(int)).tolist())

    def read_row(self, step: int) -> Row | None:
        """The whole row of a step, or None if there is none."""
        place = int(np.searchsorted(self.steps, step))
        found = self._read([place]) if place < self.rows and self.steps[place] == step else []
        return found[0] if found else None

    def _read(self, places: Iterable[int]) -> list[Row]:
        rows = []
        with open_plain(self._follower.path) as file:
            for place in places:
                start, size = self._places[place].tolist()
                file.seek(start)
                row = parse(file.read(size))
                if row is not None:
                    rows.append(row)
        return rows

    def _take(self, lines: Sequence[tuple[int, bytes]]) -> None:
        last = int(self._steps[self.rows - 1]) if self.rows else -(2**62)
        rows, places = [], []
        for start, line in lines:
            row = parse(line)
            step = None if row is None else row.get("step")
            if row is None or type(step) is not int or not last < step < 2**62:
                self.skipped += 1
                continue
            last = step
            rows.append(row)
            places.append((start, len(line)))
        if rows:
            self._add(rows, places)

    def _add(self, rows: Sequence[Row], places: Sequence[tuple[int, int]]) -> None:
        begin, end = self.rows, self.rows + len(rows)
        if begin == end:
            return
        self._grow(end)
        self._steps[begin:end] = [row["step"] for row in rows]
        self._places[begin:end] = places
        for key in dict.fromkeys(key for row in rows for key in row):
            values = _numbers([row.get(key) for row in rows])
            if key not in self._columns:
                full = len(self._columns) >= MOST_COLUMNS or len(key) > LONGEST_KEY
                if key == "step" or full or np.isnan(values).all():
                    continue
                self._columns[key] = np.full(len(self._steps), np.nan, np.float32)
            self._columns[key][begin:end] = values
        self.rows = end
        self.version += 1

    def _grow(self, size: int) -> None:
        while len(self._steps) < size:
            more = len(self._steps)
            self._steps = np.concatenate([self._steps, np.zeros(more, np.int64)])
            self._places = np.concatenate([self._places, np.zeros((more, 2), np.int64)])
            self._columns = {
                key: np.concatenate([column, np.full(more, np.nan, np.float32)])
                for key, column in self._columns.items()
            }


def sampled_rows(path: Path, most: int) -> list[Row]:
    """Rows from all over a log, in order, found by looking at evenly spaced bytes: quick, however long it is.

    The first row and the last are among them.
    """
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            found: dict[int, Row] = {}
            for place in range(most):
                file.seek(size * place // most)
                if place:
                    file.readline(_LONGEST_ROW)  # it is somewhere inside a line
                _take_row(file.readline(_LONGEST_ROW), found)
            file.seek(max(0, size - _LONGEST_ROW))
            for line in file.read().split(b"\n")[-3:-1]:
                _take_row(line + b"\n", found)
    except OSError:
        return []
    return [found[step] for step in sorted(found)]


def last_row(path: Path) -> Row | None:
    """The last whole row of a log, or None if there is none in its last 64 kB."""
    try:
        with open_plain(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LONGEST_ROW))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return next((row for row in map(parse, reversed(lines)) if row is not None and type(row.get("step")) is int), None)


def measured(row: Row) -> Row:
    """What of a row can be a measurement; a number that is not finite is None."""
    return {key: _as_number(value) for key, value in row.items() if type(value) in _PLAIN}


def _as_number(value: Any) -> Any:
    return value if value is None or abs(value) < _LARGEST else None


def parse(line: bytes) -> Row | None:
    """The JSON object of a line, or None if it holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _take_row(line: bytes, found: dict[int, Row]) -> None:
    row = parse(line) if line.endswith(b"\n") else None
    if row is not None and type(row.get("step")) is int:
        found[row["step"]] = row


def _numbers(values: list[Any]) -> Numbers:
    """NaN where a value is no number, or none that four bytes can hold."""
    if not _PLAIN.issuperset(map(type, values)):
        values = [value if type(value) in _PLAIN else None for value in values]
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:  # an int that is longer than any float
        numbers = np.array([value if value is None or abs(value) < _LARGEST else None for value in values], np.float64)
    numbers[~(np.abs(numbers) < _LARGEST)] = np.nan
    return numbers
