"""The end of a run: the trained agent where it was asked for, and the documented report.

Invariant: an agent that cannot be saved is a trained one all the same: it gets its final weights first.
"""

from __future__ import annotations

from pathlib import Path

from ..checkpoints import holds_the_same
from ..tracking.report import RunSummary, training_report
from .adjusting import told
from .saving import Subject, save_final
from .trainer import Trainer


def finish(trainer: Trainer, save_path: str | Path | None) -> str | Path | None:
    """Give the agent its final weights and save it in the run folder and at `save_path`.

    What lies at `save_path` is replaced where it is what the run saved there when it ended before: a run may be killed
    after that, or be continued with more episodes.

    Returns:
        Where the agent is, in the caller's words; None if nothing was saved.

    Raises:
        RunFolderError: a folder cannot be written.
    """
    subject = Subject(trainer.agent, trainer.environment, trainer.reward, trainer.parts.records)
    folder = trainer.parts.folder
    if trainer.learner is not None:
        trainer.learner.close()
        trainer.publish()
    own = False
    if folder is not None:
        own = save_path is not None and holds_the_same(Path(save_path), folder.final_model_dir)
        save_final(folder.final_model_dir, subject, trainer.steps, replace=True)
    if save_path is not None:
        save_final(Path(save_path), subject, trainer.steps, replace=own)
    return save_path if folder is None or save_path is not None else folder.final_model_dir


def closing_report(trainer: Trainer, saved: str | Path | None) -> str:
    """The documented text at the end of a run."""
    notes = []
    if trainer.learner is None:
        notes.append("This agent has no weights: nothing was trained.")
    notes += told(trainer.rows)
    if trainer.stop_reason:
        notes.append(f"The run {trainer.stop_reason}.")
    summary = RunSummary.of(
        trainer.rows,
        success_criterion=trainer.success_criterion,
        attainable=trainer.reward.attainable,
        saved_to=saved,
        notes=notes,
        read=trainer.data is not None,
    )
    return training_report(summary)
