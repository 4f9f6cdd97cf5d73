"""The end of a run that did not reach its end: saved, marked in its folder, and told with the way to go on.

Invariant: the first error is the one that is told. Whatever happens, the agent has its float32 weights back.
"""

from __future__ import annotations

import contextlib
import logging

from ..core.errors import RunFolderError, ServiceDown, TrainingStopped
from ..tracking.logging_setup import speaks_json
from ..tracking.status import State
from .run import Run
from .trainer import Trainer

log = logging.getLogger(__name__)

HASTY_SECONDS = 4.0
"""That a run which was told to stop waits for its trackers: whoever told it waits for the process."""


def interrupted(run: Run, trainer: Trainer) -> str:
    """Save what is done and mark the folder; an end in order where even that fails.

    Returns:
        What to tell the user.
    """
    try:
        return _save(run, trainer)
    except BaseException as error:
        failed(run, trainer, error)
        raise


def _save(run: Run, trainer: Trainer) -> str:
    folder = trainer.parts.folder
    if trainer.steps != trainer.saved_step:
        trainer.save()
    message = _how_to_resume(run, trainer)
    if folder is not None:
        folder.set_status("interrupted", message)
    if run.log_file and not speaks_json():
        log.info("%s", message)
    _end(trainer, HASTY_SECONDS)
    return message


def failed(run: Run, trainer: Trainer, error: BaseException) -> None:
    """Mark the folder, if anything in it was written, and tell the error how to go on."""
    folder = trainer.parts.folder
    if folder is not None:
        goes_on = isinstance(error, ServiceDown) or not isinstance(error, Exception)
        state: State = "interrupted" if goes_on else "failed"
        if folder.written:
            with contextlib.suppress(RunFolderError):  # the first error is the one to tell
                folder.set_status(state, f"{type(error).__name__}: {error}".removesuffix(": "))
        error.add_note(_how_to_mend(run, trainer, error))
    if run.log_file and not speaks_json():  # the command tells the terminal; as a record, the file too
        log.info("failed: %s", error)
    _end(trainer, None if isinstance(error, Exception) else HASTY_SECONDS)


def _end(trainer: Trainer, seconds: float | None) -> None:
    trainer.parts.sinks.close(failed=True, seconds=seconds)
    if trainer.learner is None:
        return
    # The caller may go on with the agent as it is. Replies that are given up leave the engine before the weights
    # change; one that the caller itself waits for may not, and then the first error is the one to tell.
    with contextlib.suppress(RuntimeError):
        trainer.publish()
    trainer.learner.close()
    with contextlib.suppress(RuntimeError):
        trainer.publish()


def _how_to_mend(run: Run, trainer: Trainer, error: BaseException) -> str:
    """Where to look, if it is the reward that failed, and how to go on afterwards."""
    place = ""
    if isinstance(error, TrainingStopped) and "the reward: " in str(error) and run.source and run.source.rewards:
        place = f"  the rewards are named in {run.source.place('rewards')}\n"
    again = (
        f"continue from step {trainer.saved_step}"
        if trainer.saved_step
        else "continue"
        if run.resume
        else "begin again"
    )
    if not isinstance(error, Exception):  # a second Ctrl-C, which is nothing to mend
        return f"  stopped at once: what was not saved by then is lost. To {again}:\n  {run.again}"
    return f"{place}  once that is mended, {again}:\n  {run.again}"


def _how_to_resume(run: Run, trainer: Trainer) -> str:
    if trainer.parts.folder is None:
        return f"stopped after step {trainer.steps}. Without output_dir nothing was saved; the agent is as trained"
    if trainer.learner is None and trainer.steps:
        return (
            f"stopped after step {trainer.steps}. A model without weights saves nothing; to begin again:\n  {run.again}"
        )
    if not trainer.steps and run.resume:
        return f"stopped before anything new was done. To continue:\n  {run.again}"
    if not trainer.steps:
        return f"stopped before the first step was done; nothing was lost. To begin again:\n  {run.again}"
    folder = trainer.parts.folder.path
    return f"stopped and saved at step {trainer.steps} in {folder}. To continue:\n  {run.again}"
