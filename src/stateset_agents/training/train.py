"""`train`: the one call of the Python API.

Invariant: it decides nothing that a config file could not state, and takes the same path as `grpo-train`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from ..agents.multi_turn import MultiTurnAgent
from ..config.schema import AgentSection, EnvironmentSection
from ..config.training import TrainingConfig
from ..config.unused import unused_keys
from ..core.environment import Environment
from ..core.errors import ConfigError, RunFolderError, TrainingStopped
from ..core.reward import DEFAULT_NOTICE, RewardFunction, as_reward, default_reward
from ..core.scenario import load_scenarios
from ..models import preflight
from ..tracking.progress import Progress
from ..tracking.report import RunSummary, training_report
from ..tracking.run_folder import RunFolder
from .callbacks import Callback
from .saving import Subject, save_final
from .trainer import RunParts, Trainer

AgentT = TypeVar("AgentT", bound=MultiTurnAgent)


async def train(
    agent: AgentT,
    environment: Environment,
    num_episodes: int | None = None,
    profile: str = "balanced",
    *,
    reward_fn: RewardFunction | object | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    save_path: str | Path | None = None,
    output_dir: str | Path | None = None,
    eval_environment: Environment | None = None,
    auto_adjust: bool | None = None,
    quiet: bool = False,
) -> AgentT:
    """Train an agent in an environment.

    Args:
        agent: trained in place; initialized if it is not yet.
        environment: its scenarios are played, a group of conversations each.
        num_episodes: conversations to train on, rounded up to whole steps (default 1000).
        profile: conservative, balanced, aggressive or experimental.
        reward_fn: a reward, an async function of (turns, context), or a list of rewards. Without one a stated default
            is used.
        config_overrides: hyperparameters by name, such as `{"learning_rate": 1e-5}`; see `TrainingConfig`.
        callbacks: watchers such as `DiagnosticsMonitor()`.
        save_path: folder for the trained agent; an existing one is never overwritten.
        output_dir: run folder with metrics, conversations and checkpoints; without it nothing but `save_path` is
            written.
        eval_environment: scenarios that evaluations use and training never sees.
        auto_adjust: see `TrainingConfig.auto_adjust`.
        quiet: no progress and no report on the terminal.

    Returns:
        The same agent, with trained float32 weights.

    Raises:
        ConfigError: a setting is unknown or wrong, or `reward_fn` is no reward.
        ModelError: the model cannot be loaded or does not fit.
        RunFolderError: a folder cannot be written or holds a run already.
        TrainingStopped: the run cannot go on; the message says why.
    """
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(f"train(agent, ...) got {agent!r}; pass a MultiTurnAgent or a subclass of it")
    if not isinstance(environment, Environment):
        raise ConfigError(f"train(agent, environment) got {environment!r}; pass an Environment")
    overrides = dict(config_overrides or {})
    if num_episodes is not None:
        overrides["num_episodes"] = num_episodes
    if auto_adjust is not None:
        overrides["auto_adjust"] = auto_adjust
    if "profile" in overrides:
        profile = overrides.pop("profile")
    config = TrainingConfig.from_profile(profile, **overrides)
    reward = default_reward() if reward_fn is None else as_reward(reward_fn)
    if save_path is not None:
        _require_free(Path(save_path))
    if config.eval_scenarios_file is not None:
        if eval_environment is not None:
            raise ConfigError("eval_environment and eval_scenarios_file both say what to evaluate on: give one of them")
        eval_environment = copy.copy(environment)
        eval_environment.scenarios = load_scenarios(config.eval_scenarios_file)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with Progress() as progress:
        say: Callable[[str], None] = (lambda _: None) if quiet else progress.say
        if reward_fn is None:
            say(DEFAULT_NOTICE)
        announce(config, environment, reward, say)
        _announce_settings(config, agent, overrides, say)
        if not agent.initialized:
            preflight(
                agent.config.model_name,
                training=True,
                lora_r=config.lora.r if config.lora else None,
                dtype=agent.config.dtype,
                device=agent.config.device,
                trust_remote_code=agent.config.trust_remote_code,
            )
        folder = None
        if output_dir is not None:
            folder = RunFolder.create(
                output_dir, config_yaml=yaml.safe_dump({"training": config.model_dump(mode="json")})
            )
        parts = RunParts(folder, eval_environment, callbacks, None if quiet else progress)
        trainer = Trainer(agent, environment, reward, config, parts)
        try:
            await run_to_end(trainer)
            saved = finish(trainer, save_path)
        finally:
            if folder is not None:
                folder.close()
    if not quiet:
        sys.stdout.write(closing_report(trainer, saved))
    return agent


def _require_free(path: Path) -> None:
    """Look before a long run whether its result can be saved at its end."""
    if path.exists():
        raise ConfigError(f"save_path {path} exists already; it is never overwritten: choose another one")
    try:
        path.mkdir(parents=True)
        path.rmdir()
    except OSError as error:
        raise RunFolderError(f"save_path {path} cannot be written ({error.strerror}); choose another one") from error


async def run_to_end(trainer: Trainer) -> None:
    """Prepare and run a trainer; the folder's status says how it ended."""
    folder = trainer.parts.folder
    try:
        await trainer.prepare()
        await trainer.run()
    except BaseException as error:
        if trainer.learner is not None:
            trainer.learner.close()
        if folder is not None:
            folder.set_status(
                "failed" if isinstance(error, Exception) else "interrupted", f"{type(error).__name__}: {error}"
            )
        raise


def finish(trainer: Trainer, save_path: str | Path | None) -> str | Path | None:
    """Give the agent its final weights and save it where it was asked for.

    Returns:
        Where the agent is, in the caller's words; None if nothing was saved.
    """
    subject = Subject(trainer.agent, trainer.environment, trainer.reward, trainer.parts.records)
    folder = trainer.parts.folder
    if trainer.learner is not None:  # first of all: an agent that cannot be saved is a trained one all the same
        trainer.learner.close()
        engine = trainer.agent.runtime.engine
        if hasattr(engine, "weights_changed"):
            engine.weights_changed(trainer.steps)
    if folder is not None:
        save_final(folder.final_model_dir, subject, trainer.steps, replace=True)
    if save_path is not None:
        save_final(Path(save_path), subject, trainer.steps)
    if folder is not None:
        folder.set_status("finished", trainer.stop_reason or "")
    return save_path if folder is None or save_path is not None else folder.final_model_dir


def closing_report(trainer: Trainer, saved: str | Path | None, *notes: str) -> str:
    """The documented text at the end of a run."""
    if trainer.learner is None:
        notes = (*notes, "This agent has no weights: nothing was trained.")
    if trainer.stop_reason:
        notes = (*notes, f"The run {trainer.stop_reason}.")
    criterion = trainer.success_criterion
    summary = RunSummary.of(
        trainer.rows,
        success_criterion=criterion,
        attainable=trainer.reward.attainable,
        saved_to=saved,
        notes=notes,
    )
    return training_report(summary)


def announce(
    config: TrainingConfig, environment: Environment, reward: RewardFunction, say: Callable[[str], None]
) -> None:
    """Tell what a run amounts to, and what a reader of its numbers should know."""
    plan = config.plan
    scenarios = [scenario.to_dict() for scenario in environment.episode_scenarios()]
    groups = "1 scenario" if plan.groups_per_step == 1 else f"{plan.groups_per_step} scenarios"
    say(
        f"{plan.total_steps} steps of {plan.conversations_per_step} conversations "
        f"({groups} x {config.num_generations}), {len(scenarios)} scenarios in all"
    )
    for note in (*environment.notices(), *reward.notices(scenarios)):
        say(note)
    for name, reason in environment.unused():
        say(f"{name} has no effect: {reason}")


def _announce_settings(
    config: TrainingConfig, agent: MultiTurnAgent, given: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """What a config file's notes tell, for settings that came as arguments."""
    for note in config.plan.notes:
        say(note)
    truncation = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    changed = [
        f"{key} {getattr(agent.config, key)}" for key, off in truncation.items() if getattr(agent.config, key) != off
    ]
    if changed:
        say(
            f"Training samples at temperature {agent.config.temperature} only; {', '.join(changed)} apply to "
            "generate_response and evaluation."
        )
    origins = {f"training.{name}": name for name in given}
    for key, reason in unused_keys(AgentSection(), EnvironmentSection(), config, origins):
        say(f"{key.removeprefix('training.')} has no effect: {reason}")


__all__ = ["TrainingStopped", "announce", "closing_report", "finish", "run_to_end", "train"]
