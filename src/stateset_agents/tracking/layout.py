"""What lies where in a run folder, and whether a run may begin in one.

Invariant: looking changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from ..checkpoints.locate import CHECKPOINTS, FINAL_MODEL
from ..core.errors import RunFolderError
from .status import STATUS, read_status

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
LOCK = "run.lock"

REPORT = "report.txt"
STARTED_FROM = "started_from.txt"
SELF_TEST = "self_test.txt"
AUTO_TRAINER = "auto_trainer.json"
TRACKERS = "trackers.json"
ORIGINS = "config_origins.json"
"""Dotted key of the config to where its value was written."""

OWN_NAMES = (
    STATUS,
    CONFIG,
    ORIGINS,
    METRICS,
    TRAJECTORIES,
    CHECKPOINTS,
    FINAL_MODEL,
    REPORT,
    STARTED_FROM,
    SELF_TEST,
    AUTO_TRAINER,
    TRACKERS,
)
GO_ON = (
    "continue it with --resume (in Python: resume=True), or choose another folder with --output-dir (in Python: "
    "output_dir)"
)
"""What to do about a folder that holds a run."""


def made_no_step(path: Path) -> bool:
    """Whether a run failed or was stopped in `path` before its first step.

    One that was killed later says "running", and may be another machine's: it does not count.
    """
    status = read_status(path)
    if status is None or status.state not in ("failed", "interrupted") or status.step:
        return False
    checkpoints = path / CHECKPOINTS
    kept = any((path / name).exists() for name in (FINAL_MODEL, REPORT))
    logged = (path / METRICS).exists() and (path / METRICS).stat().st_size > 0
    return not (kept or logged or (checkpoints.is_dir() and any(checkpoints.iterdir())))


def refuse_folders(path: Path) -> None:
    """Refuse a run in which a folder lies where it has a file.

    Raises:
        RunFolderError: it names each of them.
    """
    wrong = [name for name in (*OWN_NAMES, LOCK) if name not in (CHECKPOINTS, FINAL_MODEL) and (path / name).is_dir()]
    if wrong:
        said = "are folders, where the run has files" if len(wrong) > 1 else "is a folder, where the run has a file"
        raise RunFolderError(f"{', '.join(wrong)} in {path} {said}.\n  move what is there, and put back what was")


def refuse_used(path: Path, go_on: str) -> None:
    """Refuse a folder in which a new run would overwrite something.

    Args:
        path: of the folder, which may be missing.
        go_on: what to do where there is a run already.

    Raises:
        RunFolderError: it holds a run that made a step, or files of those names.
    """
    if made_no_step(path):
        return
    used = [name for name in OWN_NAMES if (path / name).exists()]
    if STATUS in used or METRICS in used:
        raise RunFolderError(f"{path} already holds a run, and a run is never overwritten.\n  {go_on}")
    if used:
        raise RunFolderError(
            f"{path} holds {', '.join(used)}, which this run would overwrite.\n"
            "  choose another folder with --output-dir (in Python: output_dir), or move what is there"
        )
