"""A run from a config file: what `grpo-train` does once the config is resolved.

Invariant: a run folder is made before the model is loaded and is never overwritten; whatever ends the run early leaves
a folder that says so and can be continued. What a user should know goes to the terminal and, where there is one, to the
log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import clean_stale_temporaries
from ..config import RunConfig
from ..core.errors import ConfigError, Interrupted, ModelError, RunFolderError, TrainingStopped, is_out_of_memory
from ..models import preflight
from ..tracking.logging_setup import setup_logging
from ..tracking.progress import Progress, describe
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import MetricsSink, Sinks, TensorBoardSink, WandbSink
from .callbacks import Callback
from .from_config import build_agent, build_environment, build_eval_environment, build_reward, with_weights
from .resume import begin_from, find_start, last_state, remember_start, remembered_start, take_up
from .signals import StopSignals
from .train import announce, closing_report, finish
from .trainer import RunParts, StopRequested, Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    Attributes:
        text: the documented report.
        folder: the run folder.
        rows: the metrics.
    """

    text: str
    folder: Path
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        return self.text


def run_training(config: RunConfig, *, resume: bool = False, resume_from: Path | None = None) -> RunReport:
    """Train as the config says, and write everything to its run folder.

    Args:
        config: resolved.
        resume: continue the run in `config.output_dir` from its last checkpoint.
        resume_from: start from this checkpoint, in a new run folder.

    Returns:
        The report.

    Raises:
        ConfigError, DataError, ModelError, RunFolderError, CheckpointError: see the message.
        TrainingStopped: the run cannot go on and says why.
        Interrupted: Ctrl-C or SIGTERM; the message holds the command that resumes.
    """
    import torch

    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    try:
        return asyncio.run(_run(config, resume, resume_from))
    except Exception as error:
        if is_out_of_memory(error):
            raise _out_of_memory(error) from error
        raise


def _out_of_memory(error: BaseException) -> ModelError:
    explained = ModelError(
        f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
        "  use --profile conservative (smaller micro-batches, recomputed activations), a smaller batch_size or\n"
        "  max_new_tokens, lora: true, or --no-gpu to train in the machine's main memory"
    )
    for note in getattr(error, "__notes__", ()):
        explained.add_note(note)
    return explained


async def _run(config: RunConfig, resume: bool, resume_from: Path | None) -> RunReport:
    agent = build_agent(config)
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(config.located("agent.class", f"{type(agent).__name__} has no model that could be trained"))
    environment = build_environment(config)
    evaluation = build_eval_environment(config)
    reward = build_reward(config, environment)
    config = with_weights(config, reward)
    start = None if resume_from is None else find_start(resume_from)
    lora = config.training.lora
    preflight(
        agent.config.model_name,
        training=True,
        lora_r=None if lora is None else lora.r,
        dtype=agent.config.dtype,
        device=agent.config.device,
        trust_remote_code=agent.config.trust_remote_code,
    )
    _require_packages(config)
    with _folder(config, resume=resume) as folder, Progress() as progress:
        say = _journal(config, folder, progress)
        clean_stale_temporaries(folder.checkpoints_dir)
        announce(config.training, environment, reward, say)
        last = None
        if resume:
            last = last_state(folder, config, environment, say)
            start = remembered_start(folder) if last is None else None
        elif start is not None:
            remember_start(folder, start)
        sinks = Sinks(_sinks(config, folder))
        watchers = () if config.logging.log_file is None else (_LogFile(),)
        parts = RunParts(folder, evaluation, watchers, progress, sinks, {"run": config.to_dict()})
        trainer = Trainer(agent, environment, reward, config.training, parts)

        def answer(text: str) -> None:
            progress.console.show_cursor(show=True)  # a second signal would leave it hidden
            progress.say(text)

        with StopSignals(trainer.request_stop, answer):
            try:
                await trainer.prepare()
                if resume:
                    take_up(trainer, folder, last, say)
                if start is not None:
                    begin_from(trainer, start, say)
                sinks.start(folder.path, config.to_dict(), trainer.steps)
                await trainer.run()
                saved = finish(trainer, None)
            except (StopRequested, asyncio.CancelledError):
                message = _how_to_resume(trainer, folder)
                folder.set_status("interrupted", message)
                if config.logging.log_file is not None:
                    log.info("%s", message)
                sinks.close(failed=True)
                raise Interrupted(message) from None
            except BaseException as error:
                with contextlib.suppress(RunFolderError):  # the first error is the one to tell
                    folder.set_status("failed", f"{type(error).__name__}: {error}")
                sinks.close(failed=True)
                if config.logging.log_file is not None:  # the command tells the terminal
                    log.info("failed: %s", error)
                error.add_note(_how_to_mend(error, trainer, config))
                raise
        sinks.close()
        progress.close()
        text = closing_report(trainer, saved)
        folder.write_text("report.txt", text)
        return RunReport(text, folder.path, trainer.rows)


def _folder(config: RunConfig, *, resume: bool) -> RunFolder:
    """The run folder, locked for this process."""
    if not resume:
        return RunFolder.create(config.output_dir, config_yaml=config.to_yaml())
    folder = RunFolder.open(config.output_dir)
    folder.lock()
    return folder


def _require_packages(config: RunConfig) -> None:
    """What a sink needs must be there before anything is made."""
    if config.logging.wandb is not None and config.logging.wandb.project is not None:
        WandbSink.check()
    if config.logging.tensorboard is not None:
        TensorBoardSink.check()


def _sinks(config: RunConfig, folder: RunFolder) -> list[MetricsSink]:
    sinks: list[MetricsSink] = []
    wandb, board = config.logging.wandb, config.logging.tensorboard
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


def _journal(config: RunConfig, folder: RunFolder, progress: Progress) -> Callable[[str], None]:
    """How to tell the user something: on the terminal, and in the log file where there is one."""
    if config.logging.log_file is None:
        return progress.say
    setup_logging(config.logging.level, folder.path / config.logging.log_file)
    for note in config.notes:
        log.info("%s", note)

    def say(text: str) -> None:
        progress.say(text)
        log.info("%s", text)

    return say


def _how_to_mend(error: BaseException, trainer: Trainer, config: RunConfig) -> str:
    """Where to look, if it is the reward that failed, and the command that goes on afterwards."""
    named = isinstance(error, TrainingStopped) and "the reward: " in str(error) and config.rewards
    place = f"  the rewards are named in {config.place('rewards')}\n" if named else ""
    again = f"continue from step {trainer.saved_step}" if trainer.saved_step else "begin again"
    return f"{place}  once that is mended, {again}:\n  {_resume_command()}"


def _resume_command() -> str:
    arguments, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument == "--resume-from":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--resume-from="):
            arguments.append(argument)
    return shlex.join(["grpo-train", *arguments, "--resume"])


def _how_to_resume(trainer: Trainer, folder: RunFolder) -> str:
    command = _resume_command()
    if trainer.learner is None and trainer.steps:
        return (
            f"stopped after step {trainer.steps}. A model without weights saves nothing; to begin again:\n  {command}"
        )
    if not trainer.steps:
        return f"stopped before the first step was done; nothing was lost. To begin again:\n  {command}"
    return f"stopped and saved at step {trainer.steps} in {folder.path}. To continue:\n  {command}"
