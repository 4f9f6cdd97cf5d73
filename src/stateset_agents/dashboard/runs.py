"""Which runs a folder holds, and how each of them stands.

Invariant: a run is found by looking into the folder and named by its path below it; a name that somebody asks for is
looked up among those that were found and is never made into a path.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..checkpoints.locate import CHECKPOINTS, list_checkpoints
from ..checkpoints.paths import process_is_alive
from ..core.errors import RunFolderError
from ..tracking.layout import CONFIG, METRICS, TRAJECTORIES
from ..tracking.status import STATUS, read_status
from .conversations import ConversationLog
from .metrics import MetricLog, Row, last_row, sampled_rows
from .plain_files import is_plain, unreadable

DEEPEST = 3
"""Folders below the one that was named in which runs are looked for."""
MOST_RUNS = 1000
GLANCED_ROWS = 60
QUIET_SECONDS = 120.0
"""A running run writes a heartbeat every few seconds; an update of a large model may take longer."""
GONE_SECONDS = 30.0
_LOOK_SECONDS = 2.0


class Run:
    """One run folder, as it is read.

    Args:
        name: its path below the folder that is looked at.
        path: of the run folder.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.metrics = MetricLog(path / METRICS)
        self.conversations = ConversationLog(path / TRAJECTORIES)
        self._glanced: tuple[object, list[Row]] = None, []
        self.lock = threading.RLock()
        """Held by whoever reads or updates the two logs."""

    def status(self, now: datetime | None = None) -> dict[str, Any]:
        """What `status.json` says, with the state as it is: a run that says "running" may be long dead.

        Returns:
            The status; `state` is "running", "stalled", "finished", "failed", "interrupted" or "unknown", `quiet` the
            seconds since its last sign of life.
        """
        status = read_status(self.path) if is_plain(self.path / STATUS) else None
        if status is None:
            row = last_row(self.path / METRICS)
            return {"state": "unknown", "step": row["step"] if row else 0, "message": f"{STATUS} is missing or damaged"}
        quiet = _seconds_since(status.updated, now or datetime.now(UTC))
        found = asdict(status) | {"quiet": quiet}
        if status.state != "running" or quiet is None:
            return found
        if quiet > GONE_SECONDS and status.host == socket.gethostname() and not process_is_alive(status.pid):
            return found | {"state": "interrupted", "message": "its process is gone; continue it with --resume"}
        if quiet > max(QUIET_SECONDS, 3 * self._step_seconds()):
            return found | {"state": "stalled", "message": "no sign of life"}
        return found

    def glance(self) -> list[Row]:
        """Some rows from all over the metrics, the last one among them; read again only where the file changed."""
        try:
            found = (self.path / METRICS).stat()
        except OSError:
            return []
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if state != self._glanced[0]:
            self._glanced = state, sampled_rows(self.path / METRICS, GLANCED_ROWS)
        return self._glanced[1]

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of each, oldest first, good or not."""
        try:
            return list_checkpoints(self.path / CHECKPOINTS)
        except OSError:
            return []

    def unreadable(self) -> list[str]:
        """What is there and is not read, and why, one sentence each."""
        return [why for name in (METRICS, TRAJECTORIES, CONFIG, STATUS) if (why := unreadable(self.path / name))]

    def _step_seconds(self) -> float:
        seconds = (last_row(self.path / METRICS) or {}).get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else 0.0


class RunLibrary:
    """The runs of a folder, which may be a run itself.

    Args:
        path: the folder.

    Raises:
        RunFolderError: it does not exist, is no folder, or holds no run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            found = "is a file, not a folder" if self.path.exists() else "does not exist"
            raise RunFolderError(f"{self.path} {found}, so there is no run to show")
        self._runs: dict[str, Run] = {}
        self._looked = float("-inf")
        self._lock = threading.Lock()
        if not self.runs():
            raise RunFolderError(
                f"{self.path} holds no run: neither it nor a folder in it has a {STATUS} or {METRICS}\n"
                "  give the folder that a run wrote (--output-dir), or one that holds several"
            )

    def runs(self) -> list[Run]:
        """Every run, by name. Looks again for those that began since, at most every two seconds."""
        with self._lock:
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                found = dict(_find(self.path))
                self._runs = {name: self._runs.get(name) or Run(name, path) for name, path in found.items()}
                self._looked = time.monotonic()
            return list(self._runs.values())

    def run(self, name: str) -> Run | None:
        """The run of that name, or None if there is none."""
        return next((run for run in self.runs() if run.name == name), None)


def _find(top: Path) -> list[tuple[str, Path]]:
    if _is_run(top):
        return [(top.resolve().name or "run", top)]
    found: list[tuple[str, Path]] = []
    level = [top]
    for _ in range(DEEPEST):
        inner = [child for folder in level for child in _folders(folder)]
        found += [(path.relative_to(top).as_posix(), path) for path in inner if _is_run(path)]
        level = [path for path in inner if not _is_run(path)]
    return sorted(found)[:MOST_RUNS]


def _folders(path: Path) -> list[Path]:
    """Plain folders in a folder; links could lead anywhere and are left out."""
    try:
        with os.scandir(path) as entries:
            return [path / e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:
        return []


def _is_run(path: Path) -> bool:
    return is_plain(path / STATUS) or (is_plain(path / METRICS) and is_plain(path / CONFIG))


def _seconds_since(stamp: str, now: datetime) -> float | None:
    try:
        then = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return max(0.0, (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())
