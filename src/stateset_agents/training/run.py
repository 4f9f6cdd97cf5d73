"""A run from a config file: what `grpo-train` does once the config is resolved.

Invariant: a run folder is made before the model is loaded and is never overwritten; whatever ends the run early leaves
a folder that says so and, from the first checkpoint on, can be continued.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import Checkpoint, clean_stale_temporaries, latest_checkpoint, read_checkpoint, resolve_checkpoint
from ..config import RunConfig
from ..core.errors import ConfigError, Interrupted, ModelError, RunFolderError
from ..models import preflight
from ..tracking.logging_setup import setup_logging
from ..tracking.progress import Progress
from ..tracking.run_folder import RunFolder, read_metrics
from ..tracking.sinks import MetricsSink, Sinks, TensorBoardSink, WandbSink
from .from_config import build_agent, build_environment, build_eval_environment, build_reward
from .saving import load_run_state, model_weights
from .train import closing_report, finish
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
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(error) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise _out_of_memory(error) from error
        raise
    except MemoryError as error:
        raise _out_of_memory(error) from error


def _out_of_memory(error: BaseException) -> ModelError:
    return ModelError(
        f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
        "  use --profile conservative (smaller micro-batches, recomputed activations), a smaller batch_size or\n"
        "  max_new_tokens, lora: true, or --no-gpu to train in the machine's main memory"
    )


async def _run(config: RunConfig, resume: bool, resume_from: Path | None) -> RunReport:
    agent = build_agent(config)
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(config.located("agent.class", f"{type(agent).__name__} has no model that could be trained"))
    environment = build_environment(config)
    evaluation = build_eval_environment(config)
    reward = build_reward(config, environment)
    start = None if resume_from is None else read_checkpoint(resolve_checkpoint(resume_from))
    lora = config.training.lora
    preflight(
        agent.config.model_name,
        training=True,
        lora_r=None if lora is None else lora.r,
        dtype=agent.config.dtype,
        device=agent.config.device,
    )
    folder = (
        RunFolder.open(config.output_dir)
        if resume
        else RunFolder.create(config.output_dir, config_yaml=config.to_yaml())
    )
    sinks = Sinks(_sinks(config, folder))
    with folder, Progress() as progress:
        if config.logging.log_file is not None:
            setup_logging(config.logging.level, folder.path / config.logging.log_file)
        clean_stale_temporaries(folder.checkpoints_dir)
        parts = RunParts(folder, evaluation, (), progress, sinks, {"run": config.to_dict()})
        trainer = Trainer(agent, environment, reward, config.training, parts)
        scenarios = [scenario.to_dict() for scenario in environment.episode_scenarios()]
        for note in (*environment.notices(), *reward.notices(scenarios)):
            progress.say(note)
        for name, reason in environment.unused():
            progress.say(f"{name} has no effect: {reason}")
        restore_signals = _listen(trainer)
        try:
            await trainer.prepare()
            if resume:
                start = _continue(trainer, folder, progress)
            elif start is not None:
                _begin_from(trainer, start, progress)
            sinks.start(folder.path, config.to_dict(), trainer.steps)
            await trainer.run()
            saved = finish(trainer, None)
        except StopRequested:
            folder.set_status("interrupted")
            raise Interrupted(_how_to_resume(trainer, folder)) from None
        except BaseException as error:
            with contextlib.suppress(RunFolderError):  # the first error is the one to tell
                folder.set_status("failed", f"{type(error).__name__}: {error}")
            sinks.close(failed=True)
            raise
        finally:
            restore_signals()
        sinks.close()
        progress.close()
        text = closing_report(trainer, saved)
        folder.write_text("report.txt", text)
        return RunReport(text, folder.path, trainer.rows)


def _sinks(config: RunConfig, folder: RunFolder) -> list[MetricsSink]:
    sinks: list[MetricsSink] = []
    wandb, board = config.logging.wandb, config.logging.tensorboard
    if wandb is not None and wandb.project is not None:
        sinks.append(WandbSink(wandb.project, wandb.entity, wandb.tags))
    if board is not None:
        sinks.append(TensorBoardSink(folder.path / "tensorboard" if board.log_dir is None else board.log_dir))
    return sinks


def _continue(trainer: Trainer, folder: RunFolder, progress: Progress) -> Checkpoint | None:
    """Take up the run in the folder where its last good checkpoint left it."""
    path, skipped = latest_checkpoint(folder.checkpoints_dir)
    for reason in skipped:
        progress.say(f"passed over: {reason}")
    if path is None or trainer.learner is None:
        folder.truncate(0)
        progress.say("resumed at step 0: the run had no checkpoint yet")
        return None
    checkpoint = read_checkpoint(path, verify=False)
    record = load_run_state(checkpoint, trainer.learner, adapters=trainer.config.lora is not None)
    folder.truncate(int(record["step"]))
    trainer.load_state_dict(record, read_metrics(folder.path))
    progress.say(f"resumed at step {record['step']} from {path}")
    return checkpoint


def _begin_from(trainer: Trainer, checkpoint: Checkpoint, progress: Progress) -> None:
    """Start a new run from the weights of a checkpoint; its optimizer comes along where it has one."""
    if trainer.learner is None:
        raise ModelError("--resume-from needs a model with weights, and a stub has none")
    adapters = trainer.config.lora is not None
    if "trainer" in checkpoint.manifest.records and adapters == ("adapter" in checkpoint.manifest.tensors):
        load_run_state(checkpoint, trainer.learner, adapters=adapters)
        trainer.learner.steps = 0
        progress.say(f"started from {checkpoint.path}: its weights and optimizer state, at step 0")
    elif adapters:
        raise ConfigError(
            f"--resume-from {checkpoint.path} holds merged weights; to train new adapters on top of them, give the "
            "folder as --model-name"
        )
    else:
        trainer.learner.weights.load(model_weights(checkpoint.path))
        progress.say(f"started from the weights of {checkpoint.path}, at step 0")


def _listen(trainer: Trainer) -> Any:
    """First Ctrl-C or SIGTERM: stop between two steps. Second one: at once."""
    loop = asyncio.get_running_loop()
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        if trainer.parts.progress is not None:
            trainer.parts.progress.say("stopping after what is under way is saved; once more to stop at once")
        trainer.request_stop()
        signal.signal(number, signal.SIG_DFL)

    installed = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread, or Windows
            loop.add_signal_handler(number, stop, number)
            installed.append(number)

    def restore() -> None:
        for number in installed:
            if number not in caught:
                loop.remove_signal_handler(number)

    return restore


def _how_to_resume(trainer: Trainer, folder: RunFolder) -> str:
    arguments = [a for a in sys.argv if a != "--resume"]
    command = shlex.join([Path(arguments[0]).name, *arguments[1:], "--resume"])
    if trainer.learner is None or not trainer.steps:
        return f"stopped before the first step was done; nothing was lost. To begin again:\n  {command}"
    return f"stopped and saved at step {trainer.steps} in {folder.path}. To continue:\n  {command}"
