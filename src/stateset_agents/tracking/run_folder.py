"""The run folder: the truth about one training run, on disk.

Invariant: no step that was made is overwritten. A run that ended before it recorded anything leaves no trace, and one
that failed or was stopped before its first step leaves a folder in which the same command begins again. Logs only grow
(a resumed run cuts what lies after its checkpoint), every other file is replaced in one step, and one process writes at
a time. So a reader, or a run that continues after `kill -9`, always finds whole lines and whole files.

    config.yaml          the resolved configuration
    config_origins.json  where each value of it was written
    metrics.jsonl        one object for each step; evaluations add `eval_*` keys to their step's object
    trajectories.jsonl   one conversation a line
    self_test.txt        the first conversation with its mask
    status.json          running, finished, failed or interrupted; when; how far
    checkpoints/         step-N folders
    final_model/         the weights at the end

Reading needs no lock and changes nothing. The first write takes the lock and cuts off torn lines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ..checkpoints.locate import CHECKPOINTS, FINAL_MODEL
from ..core.errors import RunFolderError
from ..core.secrets import Redactor
from ..core.trajectory import TrajectoryGroup
from .disk import explained, replace_text, require_makeable, sync_folder
from .jsonl import JsonlLog, Row, read_jsonl
from .layout import (
    CONFIG,
    GO_ON,
    LOCK,
    METRICS,
    ORIGINS,
    SELF_TEST,
    STARTED_FROM,
    TRACKERS,
    TRAJECTORIES,
    made_no_step,
    refuse_folders,
    refuse_used,
)
from .lock import FolderLock, require_unlocked
from .status import STATUS, RunStatus, State, read_status, timestamp, write_status

HEARTBEAT_SECONDS = 5.0


class RunFolder:
    """One run's folder. Make one with `create` or `open`; use it as a context manager or call `close`."""

    def __init__(self, path: Path) -> None:
        """Wrap `path` without looking at it; `create` and `open` check it first."""
        self.path = path
        self._lock: FolderLock | None = None
        self._metrics: JsonlLog | None = None
        self._trajectories: JsonlLog | None = None
        self._step = 0
        self._resumed_at: tuple[int, ...] = ()
        self._started = timestamp()
        self._last_beat = float("-inf")
        self._begun: Literal["", "in a folder", "with its folder"] = ""

    @classmethod
    def require_free(cls, path: str | os.PathLike[str], *, go_on: str = GO_ON) -> None:
        """Look, without making anything, whether `create` may begin a run there.

        Args:
            path: of the folder.
            go_on: what to do where there is a run already.

        Raises:
            RunFolderError: as `create`.
        """
        with explained(Path(path)):
            refuse_used(Path(path), go_on)
            require_makeable(Path(path))
            if Path(path).exists() and not Path(path).is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))

    @classmethod
    def require_ready(cls, path: str | os.PathLike[str], *, resume: bool) -> None:
        """Look, without making anything, whether a run may begin there, or go on.

        Raises:
            RunFolderError: as `create`, or as `open` and `lock`.
        """
        if resume:
            require_unlocked(cls.open(path).path / LOCK)
        else:
            cls.require_free(path)

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, config_yaml: str, started_from: str = "", go_on: str = GO_ON
    ) -> RunFolder:
        """Begin a run in a folder that holds none, or one that made no step. Other files in it are left alone.

        Args:
            path: made with mode 0700 if it does not exist.
            config_yaml: the resolved configuration, without secrets.
            started_from: where it takes its first weights from, for the case that it is killed before it has saved
                them; "" for a run that begins with the model.
            go_on: what to do where there is a run already.

        Raises:
            RunFolderError: the folder holds a run or files that a run would overwrite, is being written by another
                process, is no folder, or cannot be written.
        """
        folder = cls(Path(path))
        with explained(folder.path):
            refuse_used(folder.path, go_on)
            made = not folder.path.is_dir()
            if made:
                folder.path.mkdir(mode=0o700, parents=True)
            folder.lock()
            try:
                # Again, as another process may have begun a run since the first look.
                refuse_used(folder.path, go_on)
                if made_no_step(folder.path):
                    folder._clear()
                folder._begin(config_yaml, started_from)
                folder._begun = "with its folder" if made else "in a folder"
            except BaseException:
                folder.close()
                raise
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take up an existing run, to read it or to continue it.

        One that was killed while it began may have no `config.yaml` yet, and one whose `status.json` was lost is known
        by its config and its metrics.

        Raises:
            RunFolderError: `path` does not exist or holds no run, or a folder in place of one of its files.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            found = "is a file, not a folder" if folder.path.exists() else "does not exist"
            raise RunFolderError(f"{folder.path} {found}, so there is no run to read or resume there")
        refuse_folders(folder.path)
        missing = [name for name in (STATUS, CONFIG, METRICS) if not (folder.path / name).is_file()]
        if not made_no_step(folder.path) and (CONFIG in missing or len(missing) > 1):
            raise RunFolderError(
                f"{folder.path} holds no run: {', '.join(missing)} missing.\n"
                "  give the folder that a run wrote, or start one there without resuming"
            )
        status = folder.status
        folder._step = status.step if status else 0
        folder._resumed_at = tuple(status.resumed_at) if status else ()
        return folder

    # Reading

    @property
    def checkpoints_dir(self) -> Path:
        """Where the `step-N` checkpoints go."""
        return self.path / CHECKPOINTS

    @property
    def final_model_dir(self) -> Path:
        """Where the weights go at the end of the run."""
        return self.path / FINAL_MODEL

    @property
    def config_yaml(self) -> str:
        """The configuration with which the run began."""
        with explained(self.path):
            return (self.path / CONFIG).read_text(encoding="utf-8")

    @property
    def status(self) -> RunStatus | None:
        """How the run stands, or None if `status.json` is missing or no status of a run."""
        return read_status(self.path)

    # Writing

    @property
    def written(self) -> bool:
        """Whether this process has said how the run stands; not yet where a resume may still be refused."""
        return self._last_beat > float("-inf")

    def lock(self) -> None:
        """Become the one writer; every method that writes does it by itself.

        Raises:
            RunFolderError: another process writes here, or the folder cannot be written.
        """
        if self._lock is None:
            with explained(self.path):
                self._lock = FolderLock(self.path / LOCK)

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one step's metrics to `metrics.jsonl`. Numbers that are not finite are written as null.

        Args:
            row: must hold an int under "step".

        Raises:
            TypeError: no step, or one that is no int.
            RunFolderError: the disk is full, or another process writes here.
        """
        step = row.get("step")
        if type(step) is not int:
            raise TypeError(f'a metrics row needs an int under "step", not {step!r}')
        metrics, _ = self._open_logs()
        with explained(self.path):
            metrics.append(row)
        self._step = step
        self.heartbeat()

    def log_trajectories(
        self, step: int, groups: Iterable[TrajectoryGroup], *, tokens: bool = False, phase: str = "train"
    ) -> None:
        """Append every conversation of the groups to `trajectories.jsonl`, failed ones included.

        Args:
            step: the step that trains on them, or after which they were evaluated.
            groups: numbered from 0 in the log.
            tokens: also write ids, masks and log-probs (about 20 bytes a token).
            phase: "train" or "eval".

        Raises:
            RunFolderError: the disk is full, or another process writes here.
        """
        _, trajectories = self._open_logs()
        with explained(self.path):
            for number, group in enumerate(groups):
                for episode in (*group.trajectories, *group.failures):
                    place = {"step": step, "phase": phase, "group": number}
                    trajectories.append(place | episode.to_dict(tokens=tokens))

    def truncate(self, step: int, *, evaluated: bool = True) -> None:
        """Forget what was logged after `step`, before a run goes on from that step's checkpoint.

        Args:
            step: of the checkpoint.
            evaluated: False if the evaluation that belongs to the step was given up: it and the step's metrics, which
                would hold its result, are forgotten too.

        Raises:
            RunFolderError: another process writes here, or the folder cannot be written.
        """
        metrics, trajectories = self._open_logs()
        with explained(self.path):
            metrics.truncate_after(step if evaluated else step - 1)
            trajectories.truncate_after(step)
            if not evaluated:
                trajectories.truncate_from(lambda row: row.get("step") == step and row.get("phase") == "eval")
        self._step = step
        self._resumed_at = (*(earlier for earlier in self._resumed_at if earlier < step), *([step] if step else []))
        self.set_status("running")

    def set_status(self, state: State, message: str = "") -> None:
        """Say how the run stands, with the time and the last step."""
        self.lock()
        with explained(self.path):
            self._write_status(state, message)

    def heartbeat(self) -> None:
        """Say that the run is alive; at most every 5 seconds, so call it as often as you like."""
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self.set_status("running")

    def sync(self) -> dict[str, int]:
        """Return when both logs are on the disk; call it before a checkpoint is written.

        Returns:
            Length in bytes of each log by file name.
        """
        logs = self._open_logs()
        with explained(self.path):
            for file in logs:
                file.sync()
            sync_folder(self.path)
        return {file.path.name: file.size for file in logs}

    def write_text(self, name: str, text: str) -> Path:
        """Write a small file of the run (a report, an evaluation) in one step: a reader sees all of it or none.

        Args:
            name: file name inside the folder.
            text: its whole content.

        Raises:
            RunFolderError: the disk is full, or another process writes here.
        """
        self.lock()
        path = self.path / name
        with explained(self.path):
            replace_text(path, text)
        return path

    def close(self) -> None:
        """Close the logs and let another writer in. A second call does nothing."""
        for part in (self._metrics, self._trajectories):
            if part is not None:
                part.close()
        self._metrics = self._trajectories = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; a run of this process that an error ends, and that nobody has said so of, did not go on.

        If it began here and recorded nothing, it is taken away: there is nothing to read in it or to go on with.
        """
        status = self.status if error is not None and self.written else None
        if status is not None and status.state == "running" and self._begun and not self._recorded:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._take_away()
        elif status is not None and status.state == "running":
            with contextlib.suppress(RunFolderError):  # the first error is the one to tell
                self.set_status(
                    "failed" if isinstance(error, Exception) else "interrupted", f"{type(error).__name__}: {error}"
                )
        self.close()

    def _begin(self, config_yaml: str, started_from: str) -> None:
        """Write the first files. The status comes first, and last says that it runs.

        What is killed in between is known for a run that made no step: the same command begins it again, and with
        `--resume` as well, which does not say again where the run starts from.
        """
        try:
            self._write_status("interrupted", "killed while it began")
            if started_from:
                replace_text(self.path / STARTED_FROM, f"{started_from}\n")
            replace_text(self.path / CONFIG, config_yaml)
            self.checkpoints_dir.mkdir(mode=0o700)
            self._open_logs()
            self._write_status("running", "")
        except BaseException:
            self._clear()
            raise

    @property
    def _recorded(self) -> bool:
        logs = [self.path / name for name in (METRICS, TRAJECTORIES)]
        return any(file.exists() and file.stat().st_size for file in logs) or any(self.checkpoints_dir.iterdir())

    def _take_away(self) -> None:
        """Remove what `_begin` wrote, and the folder if it was made for it and nothing else is in it."""
        self._clear()
        if self._begun == "with its folder" and [file.name for file in self.path.iterdir()] == [LOCK]:
            (self.path / LOCK).unlink()
            self.path.rmdir()

    def _clear(self) -> None:
        """Remove the files of a run that made no step. The status goes last: until then it is known for such a run."""
        for name in (STARTED_FROM, SELF_TEST, CONFIG, ORIGINS, TRACKERS, METRICS, TRAJECTORIES):
            (self.path / name).unlink(missing_ok=True)
        if self.checkpoints_dir.is_dir():
            self.checkpoints_dir.rmdir()
        (self.path / STATUS).unlink(missing_ok=True)

    def _open_logs(self) -> tuple[JsonlLog, JsonlLog]:
        self.lock()
        with explained(self.path):
            if self._metrics is None:
                self._metrics = JsonlLog(self.path / METRICS)
            if self._trajectories is None:
                self._trajectories = JsonlLog(self.path / TRAJECTORIES)
        return self._metrics, self._trajectories

    def _write_status(self, state: State, message: str) -> None:
        message = Redactor.from_environment()(message)
        status = RunStatus(
            state,
            self._step,
            self._started,
            timestamp(),
            os.getpid(),
            socket.gethostname(),
            message,
            self._resumed_at,
        )
        write_status(self.path, status)
        self._last_beat = time.monotonic()


def read_metrics(path: str | os.PathLike[str]) -> list[Row]:
    """The steps of a run, in order, also while it is being written.

    Args:
        path: the run folder.
    """
    return list(read_jsonl(Path(path) / METRICS))


def read_trajectories(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The conversations of a run, one at a time, also while it is being written.

    Args:
        path: the run folder.
    """
    return read_jsonl(Path(path) / TRAJECTORIES)
