"""Taking up a run: in its own folder, or from a checkpoint that lies elsewhere.

Invariant: a continuation that would be another run is refused before a model is loaded, and whatever refuses one leaves
the files of the run as they were: `take_up` writes when nothing is left that could refuse. What was logged after the
checkpoint is forgotten, so that the continued run logs it once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..checkpoints import Checkpoint, latest_checkpoint, read_checkpoint, resolve_checkpoint
from ..checkpoints.locate import CHECKPOINTS, list_checkpoints
from ..core.errors import CheckpointError, ConfigError, ModelError
from ..core.records import Record
from ..tracking.jsonl import Row, step_of
from ..tracking.layout import CONFIG, STARTED_FROM, TRAJECTORIES
from ..tracking.run_folder import RunFolder, read_metrics, read_trajectories
from .changes import changes
from .identity import inexact
from .run import Run, Say
from .saving import load_run_state, load_weights
from .trainer import Trainer

log = logging.getLogger(__name__)


def last_state(folder: RunFolder, run: Run, say: Say, data: Sequence[Record] | None = None) -> Checkpoint | None:
    """The newest good checkpoint of a run, if the settings are still those of the run.

    Args:
        folder: of the run.
        run: what it is told now.
        say: tells what was passed over.
        data: what it learns from, if that is a file.

    Returns:
        None for a run that has no checkpoint yet.

    Raises:
        ConfigError: settings that decide what is learned have changed; every one with both values.
        CheckpointError: checkpoints or metrics were lost.
    """
    path, passed_over = latest_checkpoint(folder.checkpoints_dir)
    for reason in passed_over:
        say(f"passed over: {reason}")
    if path is None:
        _require_none_saved(folder)
        return None
    checkpoint = read_checkpoint(path, verify=False)
    config = run.config
    problems = list(changes(checkpoint, run, data))
    record = checkpoint.record("trainer")
    if record["step"] > config.plan.total_steps:
        held = f"the run in {folder.path} has held {record['episodes']} already: ask for at least as many"
        problems.append(
            run.located("training.num_episodes", f"training.num_episodes is {config.num_episodes}, but {held}.")
        )
    if problems:
        problems[-1] += f"\n  a resumed run keeps its settings: change them back, or {_anew(folder)}"
        raise ConfigError(*problems)
    _require_metrics(folder, record)
    if data is None:
        _tell_lost_conversations(folder, record)
    return checkpoint


def _anew(folder: RunFolder) -> str:
    return (
        f"start a new run from its checkpoint with --resume-from {folder.path} and another --output-dir (in Python: "
        "resume_from and output_dir)"
    )


def _require_none_saved(folder: RunFolder) -> None:
    """Refuse to begin again a run whose checkpoints are gone: that would cost its logs as well."""
    unusable = [place for step, place in list_checkpoints(folder.checkpoints_dir) if step > 0]
    if unusable:
        raise CheckpointError(
            f"none of the checkpoints in {folder.checkpoints_dir} can be gone on from, for the reasons above.\n  mend "
            "one of them (a copy from elsewhere, or the name of its step), or begin again in another folder with "
            "--output-dir (in Python: output_dir)"
        )
    if any(row.get("save_seconds") for row in read_metrics(folder.path)):
        raise CheckpointError(
            f"metrics.jsonl says that the run saved checkpoints, but {folder.checkpoints_dir} holds none: they were "
            "moved or deleted, or lie on a disk that is not there.\n  put them back, or begin again in another folder "
            "with --output-dir (in Python: output_dir)"
        )


def _rows_before(folder: RunFolder, record: Mapping[str, Any]) -> list[Row]:
    """The metrics that a checkpoint's state goes on from; one whose evaluation was given up has its last row itself."""
    last = int(record["step"]) - (record["pending"] is not None)
    return list(takewhile(lambda row: step_of(row) <= last, read_metrics(folder.path)))


def _require_metrics(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Every step before the checkpoint is logged: the logs reach the disk before it does."""
    expected = int(record["step"]) - (record["pending"] is not None)
    logged = [row.get("step") for row in _rows_before(folder, record)]
    if logged != list(range(1, expected + 1)):
        missing = [step for step in range(1, expected + 1) if step not in logged]
        what = f"does not hold step {missing[0]}" if missing else "holds more than its steps"
        raise CheckpointError(
            f"the newest checkpoint of {folder.path} was written after step {record['step']}, but metrics.jsonl "
            f"{what}: it was changed, or part of it was lost.\n  put it back, or {_anew(folder)}"
        )


def _tell_lost_conversations(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Warn of conversations before the checkpoint that are gone. No step needs them, so that the run may go on."""
    rows = _rows_before(folder, record)
    if record["pending"] is not None:
        rows.append(record["pending"])
    kept = Counter((step_of(row), str(row.get("phase"))) for row in read_trajectories(folder.path))
    counts = {(row["step"], "train"): int(row.get("step_episodes") or 0) for row in rows}
    counts |= {(row["step"], "eval"): int(row.get("eval_episodes") or 0) for row in rows}
    lost = {place: count - kept[place] for place, count in counts.items() if kept[place] < count}
    if lost:
        steps = sorted({step for step, _ in lost})
        where = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps from {steps[0]} to {steps[-1]}"
        log.warning(
            "%s has lost %d of %d conversations up to step %d (%s): it was changed, or part of it was lost. The run "
            "goes on, as no step needs them, but whatever reads the file will not find them. If there is a copy, stop "
            "the run, put it back and resume again",
            folder.path / TRAJECTORIES,
            sum(lost.values()),
            sum(counts.values()),
            record["step"],
            where,
        )


def computed_in(checkpoint: Checkpoint) -> str | None:
    """The precision that the run computes in, for one with weights."""
    precision: str | None = checkpoint.record("trainer")["learner"]["compute"]
    return precision


def remembered_start(folder: RunFolder) -> Checkpoint | None:
    """Where a run without checkpoints began; None if it began from the model.

    Raises:
        CheckpointError: that checkpoint is gone.
    """
    note = folder.path / STARTED_FROM
    return find_start(Path(note.read_text(encoding="utf-8").strip())) if note.is_file() else None


def take_up(trainer: Trainer, folder: RunFolder, checkpoint: Checkpoint | None, config_yaml: str, say: Say) -> None:
    """Bring a prepared trainer and the folder to the state of a checkpoint, or of a run that did no step.

    Args:
        trainer: prepared; where there is no checkpoint, with the weights that the run begins with.
        folder: of the run.
        checkpoint: to go on from; None begins again.
        config_yaml: what the run is told now.
        say: tells what was done.

    Raises:
        CheckpointError: the checkpoint does not fit the model; nothing was written.
        RunFolderError: the folder cannot be written, or the logs cannot be cut.
    """
    if checkpoint is None or trainer.learner is None:
        folder.write_text(CONFIG, config_yaml)
        folder.truncate(0)
        damaged = _move_damaged(folder, after=-1)
        reason = "the checkpoint that it began with is damaged" if damaged else "it had no checkpoint yet"
        if trainer.learner is None:
            reason = "a model without weights has no checkpoints"
        say(f"resumed {folder.path} at step 0: {reason}, so it begins again")
        return
    record = load_run_state(checkpoint, trainer.learner, adapters=trainer.config.lora is not None)
    step = int(record["step"])
    trainer.load_state_dict(record, _rows_before(folder, record))
    folder.write_text(CONFIG, config_yaml)
    _move_damaged(folder, after=step)
    folder.truncate(step, evaluated=record["pending"] is None)
    then = record["config"]["num_episodes"]
    if then != trainer.config.num_episodes:
        say(f"num_episodes is {trainer.config.num_episodes} instead of {then}")
    done = ": nothing is left to train" if step == trainer.config.plan.total_steps else ""
    say(f"resumed {folder.path} at step {step} of {trainer.config.plan.total_steps}{done}")
    if not done:
        reasons = list(inexact(record, trainer.config, trainer.learner.device))
        say(f"resumed step {step}: {'approximate: ' + '; '.join(reasons) if reasons else 'exact'}")


def _move_damaged(folder: RunFolder, *, after: int) -> bool:
    """Move what was passed over out of the way of the checkpoints to come. Returns whether there was any."""
    passed_over = [path for step, path in list_checkpoints(folder.checkpoints_dir) if step > after]
    for damaged in passed_over:
        number, target = 1, damaged.with_name(f"damaged-{damaged.name}")
        while target.exists():
            number, target = number + 1, damaged.with_name(f"damaged-{damaged.name}-{number + 1}")
        damaged.rename(target)
    return bool(passed_over)


def find_start(path: Path) -> Checkpoint:
    """The checkpoint that `--resume-from` means: of a run folder the newest one, which has an optimizer state.

    Raises:
        CheckpointError: there is none.
    """
    path = path.expanduser()
    newest, passed_over = latest_checkpoint(path / CHECKPOINTS)
    if newest is None:
        return read_checkpoint(resolve_checkpoint(path), verify=False)
    for reason in passed_over:
        log.warning("passed over: %s", reason)
    return read_checkpoint(newest, verify=False)


def has_state(checkpoint: Checkpoint, *, adapters: bool) -> bool:
    """Whether a new run takes the optimizer's state from a checkpoint too, and not its weights alone.

    Raises:
        ConfigError: it holds merged weights, and adapters are to be trained.
    """
    if "trainer" in checkpoint.manifest.records and adapters == ("adapter" in checkpoint.manifest.tensors):
        return True
    if adapters:
        raise ConfigError(
            f"{checkpoint.path} holds merged weights; to train new adapters on top of them, give the folder as the "
            "model's name"
        )
    return False


def begin_from(trainer: Trainer, checkpoint: Checkpoint, say: Say) -> None:
    """Give a new run the weights of a checkpoint, and its optimizer state where it has one.

    Raises:
        CheckpointError: the checkpoint is one of another model.
        ConfigError: it holds merged weights, and adapters are to be trained.
        ModelError: a stub has no weights.
    """
    if trainer.learner is None:
        raise ModelError("a run can only begin from a checkpoint with a model that has weights, and a stub has none")
    adapters = trainer.config.lora is not None
    if has_state(checkpoint, adapters=adapters):
        load_run_state(checkpoint, trainer.learner, adapters=adapters)
        trainer.learner.steps = 0
        say(f"started from {checkpoint.path}: its weights and optimizer state, at step 0")
    else:
        load_weights(checkpoint, trainer.learner)
        say(f"started from {checkpoint.path}: its weights, with a fresh optimizer, at step 0")
    trainer.publish()
