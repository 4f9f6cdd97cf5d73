"""Append-only logs of one JSON object a line.

Invariant: every byte that was written stays where it is until `truncate`, which only ever cuts off the end. A line is
whole or it is torn; a torn one can only be the last, is never read, and is cut off before the next line is appended.
The JSON is strict: a number that is not finite is written as null.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.secrets import Redactor

log = logging.getLogger(__name__)

Row = dict[str, Any]


def to_line(row: Mapping[str, Any], redactor: Redactor | None = None) -> bytes:
    """One strict JSON line, newline included.

    NaN and infinities become null, scalars of numpy and torch become numbers, and what JSON cannot hold becomes its
    `repr`: what a user's code left in a turn's metadata must not end a run.

    Args:
        row: what the line says.
        redactor: takes secrets out of its texts.
    """
    text = json.dumps(_plain(row, redactor), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _plain(value: Any, redactor: Redactor | None) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return redactor(value) if redactor else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, redactor) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, redactor) for item in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item(), redactor)
    return _plain(repr(value), redactor)


class JsonlLog:
    """The writing end of one log, in which the environment's secrets are `***`. The caller holds the folder's lock.

    Raises:
        OSError: from every method, when the disk or the folder refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._redactor = Redactor.from_environment()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = _end_of_whole_lines(path)
        if self._size != os.fstat(self._fd).st_size:
            log.warning("%s ended in a torn line, which was cut off", path)
            os.ftruncate(self._fd, self._size)

    @property
    def size(self) -> int:
        """Length in bytes; always the end of a whole line."""
        return self._size

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line. When the disk refuses part of it, the part is taken back."""
        line = to_line(row, self._redactor)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)

    def truncate_after(self, step: int) -> int:
        """Cut everything from the first line whose "step" is above `step`.

        Returns:
            The number of bytes that were cut.
        """
        return self.truncate_from(lambda row: step_of(row) > step)

    def truncate_from(self, first: Callable[[Row], bool]) -> int:
        """Cut everything from the first line for which `first` is true.

        Returns:
            The number of bytes that were cut.
        """
        cut = next((start for start, row in _lines(self.path) if first(row)), self._size)
        dropped = self._size - cut
        os.ftruncate(self._fd, cut)
        self._size = cut
        return dropped

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_jsonl(path: Path) -> Iterator[Row]:
    """The rows of a log that may still be written to; nothing for a file that does not exist.

    A torn last line is left out in silence. A line in the middle that does not parse (a disk that lost power) is left
    out with a warning that names it.
    """
    return (row for _, row in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    """Each whole line that parses, with the byte at which it begins."""
    if not path.exists():
        return
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            row = _parse(line)
            if row is not None:
                yield start, row
            elif file.peek(1):
                log.warning("%s, line %d is not a JSON object and was skipped", path, number)
            start += len(line)


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _end_of_whole_lines(path: Path) -> int:
    """Byte after the last line that is whole: ended by a newline, and JSON."""
    end = start = 0
    with path.open("rb") as file:
        for line in file:
            torn = not line.endswith(b"\n") or (not file.peek(1) and _parse(line) is None)
            start += len(line)
            end = end if torn else start
    return end


def step_of(row: Row) -> float:
    """The step that a row is of; one that names none comes before all."""
    step = row.get("step")
    return step if isinstance(step, int | float) else -math.inf
