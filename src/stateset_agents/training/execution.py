"""One run from its first line to its report: what `grpo-train`, `train(...)` and the quickstart have in common.

Invariant: a run folder is made before the model is loaded and is never overwritten; whatever ends the run early leaves
a folder that says so and can be continued. What a user should know goes to the terminal and, where there is one, to the
log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import clean_stale_temporaries
from ..config import RunConfig
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.errors import ConfigError, Interrupted, ModelError, RunFolderError, TrainingStopped, is_out_of_memory
from ..core.reward import RewardFunction
from ..models import preflight
from ..tracking.logging_setup import setup_logging
from ..tracking.progress import Progress, describe
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import MetricsSink, Sinks, TensorBoardSink, WandbSink
from ..tracking.status import State
from .announce import announce
from .callbacks import Callback
from .closing import closing_report, finish
from .resume import begin_from, computed_in, find_start, last_state, remember_start, remembered_start, take_up
from .signals import StopSignals
from .trainer import RunParts, StopRequested, Trainer

log = logging.getLogger(__name__)

Say = Callable[[str], None]

_IN_TRAINING: set[int] = set()
"""The agents that are trained at this moment, by `id`: two runs would change the same weights under each other."""


@dataclass(frozen=True)
class Run:
    """Everything that a run needs.

    Attributes:
        agent, environment, reward: what is trained, in what, for what.
        config: every hyperparameter.
        evaluation: environment whose scenarios are evaluated; None evaluates on the training scenarios.
        callbacks: watchers.
        folder: the run folder's path; None keeps everything in memory.
        save_path: one more place for the trained agent, shown in the report as it is given.
        source: the config file that all of this comes from, if it does: it names sinks and log file, and places in
            messages.
        quiet: nothing on the terminal.
        resume: continue the run in `folder` from its last checkpoint.
        resume_from: start from this checkpoint.
        again: how to continue the run, as the user would type it.
        catch_signals: Ctrl-C and SIGTERM stop the run between two steps. A library call leaves them to its caller: a
            cancelled task saves as well.
        before: called with the loaded, still untrained agent.
        after: called with the trained agent; what it returns is added to the report.
    """

    agent: MultiTurnAgent
    environment: Environment
    reward: RewardFunction
    config: TrainingConfig
    evaluation: Environment | None = None
    callbacks: Sequence[Callback] = ()
    folder: Path | None = None
    save_path: str | Path | None = None
    source: RunConfig | None = None
    quiet: bool = False
    resume: bool = False
    resume_from: Path | None = None
    again: str = ""
    catch_signals: bool = False
    before: Callable[[Trainer, Say], Awaitable[None]] | None = None
    after: Callable[[Trainer, Say], Awaitable[str]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was told, as JSON."""
        if self.source is not None:
            return self.source.to_dict()
        return {
            "agent": asdict(self.agent.config),
            "environment": {
                "max_turns": self.environment.max_turns,
                "persona": getattr(self.environment, "persona", None),
            },
            "rewards": self.reward.to_config(),
            "training": self.config.model_dump(mode="json"),
        }

    def located(self, key: str, message: str) -> str:
        """A problem with a setting, with the place where it was written if that is known."""
        return message if self.source is None else self.source.located(key, message)


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    Attributes:
        text: the documented report.
        folder: the run folder; None if there is none.
        rows: the metrics.
    """

    text: str
    folder: Path | None
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        return self.text


async def execute(run: Run) -> RunReport:
    """Train, and write everything to the run folder.

    Raises:
        ConfigError, DataError, ModelError, RunFolderError, CheckpointError: see the message.
        TrainingStopped: the run cannot go on and says why.
        Interrupted: Ctrl-C or SIGTERM, where they are caught; the message says how to continue.
        asyncio.CancelledError: the caller gave the run up; what was done is saved.
    """
    if id(run.agent) in _IN_TRAINING:
        raise ConfigError("this agent is being trained already: wait for that run, or make another agent")
    if run.config.threads is not None:
        torch.set_num_threads(run.config.threads)
    _IN_TRAINING.add(id(run.agent))
    try:
        return await _execute(run)
    except Exception as error:
        if is_out_of_memory(error):
            raise _out_of_memory(error) from error
        raise
    finally:
        _IN_TRAINING.discard(id(run.agent))


async def _execute(run: Run) -> RunReport:
    if run.resume and run.resume_from is not None:
        raise ConfigError("resume continues the run in output_dir, resume_from starts a new one: give one of them")
    if run.resume and run.folder is None:
        raise ConfigError("resume continues the run in output_dir: give it")
    start = None if run.resume_from is None else find_start(run.resume_from)
    _preflight(run)
    _require_packages(run.source)
    with _folder(run) as folder, Progress() as progress:
        say = _journal(run, folder, progress)
        announce(run.config, run.environment, run.evaluation, run.reward, say)
        last = None
        if folder is not None:
            clean_stale_temporaries(folder.checkpoints_dir)
            if run.resume:
                last = last_state(folder, run.settings, run.config, run.environment, say, run.located)
                start = remembered_start(folder) if last is None else None
            elif start is not None:
                remember_start(folder, start)
        watchers = (*run.callbacks, *([_LogFile()] if _log_file(run) else []))
        parts = RunParts(
            folder,
            run.evaluation,
            watchers,
            None if run.quiet else progress,
            Sinks(_sinks(run.source, folder)),
            {"run": run.settings},
        )
        trainer = Trainer(run.agent, run.environment, run.reward, run.config, parts)

        def answer(text: str) -> None:
            progress.console.show_cursor(show=True)  # a second signal would leave it hidden
            if not run.quiet:
                progress.say(text)

        with StopSignals(trainer.request_stop, answer) if run.catch_signals else contextlib.nullcontext():
            try:
                await trainer.prepare(None if last is None else computed_in(last), resumes=run.resume)
                if run.before is not None:
                    await run.before(trainer, say)
                if run.resume and folder is not None:
                    take_up(trainer, folder, last, say)
                if start is not None:
                    begin_from(trainer, start, say)
                if folder is not None:
                    parts.sinks.start(folder.path, run.settings, trainer.steps)
                await trainer.run()
                more = "" if run.after is None else await run.after(trainer, say)
                saved = finish(trainer, run.save_path)
            except (StopRequested, asyncio.CancelledError):
                message = _saved(run, trainer)
                if not run.catch_signals:
                    say(message)
                    raise
                raise Interrupted(message) from None
            except BaseException as error:
                _failed(run, trainer, error)
                raise
        parts.sinks.close()
        progress.close()
        text = closing_report(trainer, saved) + (more and f"\n{more}")
        if folder is not None:
            folder.write_text("report.txt", text)
        return RunReport(text, run.folder, trainer.rows)


def _out_of_memory(error: BaseException) -> ModelError:
    explained = ModelError(
        f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
        "  use the profile conservative (smaller micro-batches, recomputed activations), a smaller batch_size or\n"
        "  max_new_tokens, lora, or --no-gpu (device cpu) to train in the machine's main memory"
    )
    for note in getattr(error, "__notes__", ()):
        explained.add_note(note)
    return explained


def _preflight(run: Run) -> None:
    """Refuse a model that cannot fit before anything is made."""
    if run.agent.initialized:
        return
    preflight(
        run.agent.config.model_name,
        training=True,
        lora_r=None if run.config.lora is None else run.config.lora.r,
        dtype=run.agent.config.dtype,
        device=run.agent.config.device,
        trust_remote_code=run.agent.config.trust_remote_code,
    )


@contextmanager
def _folder(run: Run) -> Iterator[RunFolder | None]:
    """The run folder, locked for this process; None for a run in memory."""
    if run.folder is None:
        yield None
        return
    if run.resume:
        folder = RunFolder.open(run.folder)
        folder.lock()
    else:
        folder = RunFolder.create(run.folder, config_yaml=_as_yaml(run))
    with folder:
        yield folder


def _as_yaml(run: Run) -> str:
    if run.source is not None:
        return run.source.to_yaml()
    try:
        plain = json.loads(json.dumps(run.settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the settings of the agent, environment or reward are no JSON: {error}") from error
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _require_packages(source: RunConfig | None) -> None:
    """What a sink needs must be there before anything is made."""
    if source is None:
        return
    if source.logging.wandb is not None and source.logging.wandb.project is not None:
        WandbSink.check()
    if source.logging.tensorboard is not None:
        TensorBoardSink.check()


def _sinks(source: RunConfig | None, folder: RunFolder | None) -> list[MetricsSink]:
    sinks: list[MetricsSink] = []
    if source is None or folder is None:
        return sinks
    wandb, board = source.logging.wandb, source.logging.tensorboard
    if wandb is not None and wandb.project is not None:
        sinks.append(WandbSink(wandb.project, wandb.entity, wandb.tags))
    if board is not None:
        sinks.append(TensorBoardSink(folder.path / "tensorboard" if board.log_dir is None else board.log_dir))
    return sinks


class _LogFile(Callback):
    """The steps as lines of the log file. The terminal shows them by itself, and gets warnings only from the log."""

    def __init__(self) -> None:
        self._total = 0

    def on_run_start(self, total_steps: int, start_step: int) -> None:
        self._total = total_steps

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        log.info("step %d/%d  %s", metrics["step"], self._total, "  ".join(describe(metrics)))


def _log_file(run: Run) -> str | None:
    return None if run.source is None else run.source.logging.log_file


def _journal(run: Run, folder: RunFolder | None, progress: Progress) -> Say:
    """How to tell the user something: on the terminal, and in the log file where there is one."""
    show: Say = (lambda _: None) if run.quiet else progress.say
    file = _log_file(run)
    if file is None or folder is None or run.source is None:
        return show
    setup_logging(run.source.logging.level, folder.path / file)
    for note in run.source.notes:
        log.info("%s", note)

    def say(text: str) -> None:
        show(text)
        log.info("%s", text)

    return say


def _saved(run: Run, trainer: Trainer) -> str:
    """`_interrupted`, with an end in order where even that fails."""
    try:
        return _interrupted(run, trainer)
    except BaseException as error:
        _failed(run, trainer, error)
        raise


def _interrupted(run: Run, trainer: Trainer) -> str:
    """Save what is done and mark the folder; returns what to tell the user."""
    folder = trainer.parts.folder
    if trainer.steps != trainer.saved_step:
        trainer.save()
    message = _how_to_resume(run, trainer)
    if folder is not None:
        folder.set_status("interrupted", message)
    if _log_file(run):
        log.info("%s", message)
    _end(trainer)
    return message


def _failed(run: Run, trainer: Trainer, error: BaseException) -> None:
    """Mark the folder, and tell the error how to go on."""
    folder = trainer.parts.folder
    if folder is not None:
        state: State = "failed" if isinstance(error, Exception) else "interrupted"
        with contextlib.suppress(RunFolderError):  # the first error is the one to tell
            folder.set_status(state, f"{type(error).__name__}: {error}")
        error.add_note(_how_to_mend(run, trainer, error))
    if _log_file(run):  # the command tells the terminal
        log.info("failed: %s", error)
    _end(trainer)


def _end(trainer: Trainer) -> None:
    trainer.parts.sinks.close(failed=True)
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
