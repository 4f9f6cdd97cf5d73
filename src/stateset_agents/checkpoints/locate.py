"""Which checkpoint a path means, and which ones to keep.

Invariant: an incomplete or damaged checkpoint is never chosen and never counted; what was passed over is said, and
the newest good one is never deleted.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import CheckpointError
from .disk import explained, sync_folder
from .manifest import Manifest
from .paths import MANIFEST, OLD, TEMPORARY, TRASH, old_beside
from .reader import Checkpoint, read_checkpoint

CHECKPOINTS = "checkpoints"
FINAL_MODEL = "final_model"
PROGRESS = "progress"
"""Record of a final model: the step after which it was saved."""
STATE = "trainer"
"""Record of a run's checkpoint: all that the run needs to go on."""

_LISTED = 8
"""Checkpoints that a message names at most."""
_STEP = re.compile(r"step-(\d+)")
_UNFINISHED = re.compile(r"(?:\.tmp|\.trash)-.+-\d+")

log = logging.getLogger(__name__)


def step_folder(checkpoints_dir: str | Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(checkpoints_dir) / f"step-{step}"


def list_checkpoints(checkpoints_dir: str | Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything named `step-N`, oldest first, good or not."""
    folder = Path(checkpoints_dir)
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _STEP.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink():
            found.append((int(match[1]), path))
    return sorted(found)


def latest_checkpoint(checkpoints_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies and is of the step in its name, and why newer ones were passed over.

    Args:
        checkpoints_dir: holds `step-N` folders; it may be missing.
    """
    skipped = []
    for step, path in reversed(list_checkpoints(checkpoints_dir)):
        try:
            _require_step(read_checkpoint(path), step)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        return path, skipped
    return None, skipped


def _require_step(checkpoint: Checkpoint, step: int) -> None:
    """Refuse a state under the name of another step: what is older than its name would cost the steps in between."""
    state = checkpoint.record(STATE) if STATE in checkpoint.manifest.records else None
    held = state.get("step", step) if isinstance(state, dict) else step
    if held != step:
        raise CheckpointError(
            f"{checkpoint.path} is named after step {step}, but holds the state after step {held}: it was copied or "
            "renamed"
        )


def resolve_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a user means by a path.

    Args:
        path: a checkpoint (`checkpoints/step-N`, `final_model`, a `save_path`), a folder of `step-N`, or a run folder:
            its `final_model` if that is complete and no checkpoint is of a later step (as after a finished run was
            resumed with more episodes and stopped), otherwise its newest good checkpoint.

    Returns:
        A folder that was verified.

    Raises:
        CheckpointError: there is none; the message says what is there instead.
    """
    path = Path(path).expanduser()
    if not path.exists() and not old_beside(path.absolute()).exists():
        raise CheckpointError(f"there is no checkpoint {path}: no such folder{_beside(path)}")
    if not path.is_dir() or (path / MANIFEST).exists():
        return read_checkpoint(path).path
    passed_over = []
    final = path / FINAL_MODEL
    finished = None
    if final.exists() or old_beside(final.absolute()).exists():
        try:
            finished = read_checkpoint(final)
        except CheckpointError as error:
            passed_over.append(str(error))
    inner = path / CHECKPOINTS
    if finished is not None and not _is_behind(finished, inner):
        return finished.path
    found, skipped = latest_checkpoint(inner if inner.is_dir() else path)
    passed_over += skipped
    for reason in passed_over:
        log.warning("passed over: %s", reason)
    if found is not None:
        return found
    if finished is not None:
        return finished.path
    raise CheckpointError(_nothing_there(path, passed_over))


def _is_behind(final: Checkpoint, checkpoints_dir: Path) -> bool:
    """Whether there is a checkpoint of a later step than the final model's."""
    saved = list_checkpoints(checkpoints_dir)
    if not saved or PROGRESS not in final.manifest.records:
        return False
    step: int = final.record(PROGRESS)["step"]
    return saved[-1][0] > step


def prune_checkpoints(checkpoints_dir: str | Path, keep: int, *, protect: Iterable[str | Path] = ()) -> list[Path]:
    """Delete the oldest checkpoints beyond the `keep` newest good ones.

    Args:
        checkpoints_dir: holds `step-N` folders.
        keep: at least 1. Incomplete ones (judged by sizes, not by hashes) do not count towards it and go when they
            are older than all that stay.
        protect: names or paths that stay, such as the best one; they do not count either.

    Returns:
        What was deleted.

    Raises:
        ValueError: `keep` is less than 1.
        RunFolderError: one cannot be deleted.
    """
    if keep < 1:
        raise ValueError(f"keep must be >= 1, not {keep}: the newest checkpoint always stays")
    protected = {Path(one).name for one in protect}
    good, deleted = 0, []
    for _, path in reversed(list_checkpoints(checkpoints_dir)):
        if path.name in protected:
            continue
        if good >= keep:
            with explained(path):
                _delete(path)
            deleted.append(path)
        elif _looks_complete(path):
            good += 1
    return deleted


def clean_stale_temporaries(folder: str | Path) -> list[Path]:
    """Remove what killed processes left half written or half deleted in `folder`, and finish half-done replacements.

    Call it where nobody writes, such as with the run folder's lock: the process id in a name tells nothing, as another
    process may have it by now.

    Returns:
        What was removed, or given its name back.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    cleaned = []
    with explained(folder):
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not path.is_dir():
                continue
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path)
                cleaned.append(path)
            elif path.name.startswith(OLD):
                target = path.with_name(path.name.removeprefix(OLD))
                if target.exists():
                    shutil.rmtree(path)
                else:
                    path.rename(target)
                cleaned.append(path)
    return cleaned


def _delete(path: Path) -> None:
    """Take the name away first, so that a half-deleted checkpoint is never met under it."""
    trash = path.with_name(f"{TRASH}{path.name}-{os.getpid()}")
    path.rename(trash)
    sync_folder(path.parent)
    shutil.rmtree(trash)


def _looks_complete(path: Path) -> bool:
    try:
        Manifest.read(path).verify(path, contents=False)
    except CheckpointError:
        return False
    return True


def _beside(path: Path) -> str:
    """The checkpoints that lie where one was looked for; the newest of many."""
    names = [beside.name for _, beside in list_checkpoints(path.parent)]
    if not names:
        return ""
    more = f"the newest of {len(names)} are" if len(names) > _LISTED else "there are" if len(names) > 1 else "there is"
    return f"; {more} {', '.join(names[-_LISTED:])}"


def _nothing_there(path: Path, passed_over: list[str]) -> str:
    if passed_over:
        return f"{path} has no checkpoint that is whole. {'; '.join(passed_over)}"
    if (path / "config.json").is_file():
        return f"{path} is a model folder, not a checkpoint (no {MANIFEST}): name it as the model instead"
    if any((path / name).exists() for name in (CHECKPOINTS, "config.yaml", "metrics.jsonl")):
        return f"{path} is a run that was stopped before its first checkpoint"
    if any(child.name.startswith(TEMPORARY) for child in path.iterdir()):
        return f"{path} holds only a checkpoint that was not finished"
    nothing = f"{path} is no run and no checkpoint: it has neither {MANIFEST}, {FINAL_MODEL}/ nor {CHECKPOINTS}/"
    return f"{nothing}{_runs_in(path)}"


def _runs_in(path: Path) -> str:
    """The runs and checkpoints in a folder of them; the newest of many."""
    marks = (MANIFEST, FINAL_MODEL, CHECKPOINTS)
    runs = [child for child in path.iterdir() if any(os.path.exists(child / mark) for mark in marks)]  # noqa: PTH110 - False where it may not be looked at
    names = [str(run) for run in sorted(runs, key=lambda run: (run.stat().st_mtime, run.name))]
    if not names:
        return ""
    more = f"the newest of {len(names)}: " if len(names) > _LISTED else ""
    return f"\n  it holds runs; name one of them: {more}{', '.join(names[-_LISTED:])}"
