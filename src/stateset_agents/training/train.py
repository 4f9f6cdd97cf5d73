"""`train`: the one call of the Python API.

Invariant: it decides nothing that a config file could not state, and takes the same path as `grpo-train`.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..agents.multi_turn import MultiTurnAgent, require_begun
from ..checkpoints import FINAL_MODEL, holds_the_same
from ..config.alerts import AlertSettings
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.errors import ConfigError, RunFolderError
from ..core.reward import DEFAULT_NOTICE, RewardFunction, as_reward, default_reward
from ..tracking.progress import Progress
from .announce import announce_arguments
from .beforehand import require_possible
from .callbacks import Callback
from .chosen import Chosen
from .execution import execute
from .from_config import build_records
from .run import Run

AgentT = TypeVar("AgentT", bound=MultiTurnAgent)


async def train(
    agent: AgentT,
    environment: Environment,
    num_episodes: int | None = None,
    profile: str | None = None,
    *,
    reward_fn: RewardFunction | object | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    save_path: str | Path | None = None,
    output_dir: str | Path | None = None,
    eval_environment: Environment | None = None,
    auto_adjust: bool | None = None,
    alerts: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    resume: bool = False,
    resume_from: str | Path | None = None,
    quiet: bool = False,
    chosen: Chosen | None = None,
) -> AgentT:
    """Train an agent in an environment.

    Args:
        agent: trained in place; initialized if it is not yet.
        environment: its scenarios are played, a group of conversations each.
        num_episodes: conversations to train on, rounded up to whole steps (default 1000).
        profile: conservative, balanced (the default), aggressive or experimental.
        reward_fn: a reward, an async function of (turns, context), or a list of rewards. Without one a stated default
            is used.
        config_overrides: hyperparameters by name, such as `{"learning_rate": 1e-5}`; see `TrainingConfig`. With
            `{"algorithm": "sft", "data_file": "answers.jsonl"}` the agent learns from recorded conversations, and the
            environment is where it is evaluated. What has an argument of its own here is given once.
        callbacks: a list of watchers such as `DiagnosticsMonitor()`.
        save_path: folder for the trained agent; an existing one is never overwritten, but by the run that wrote it.
        output_dir: run folder with metrics, conversations and checkpoints; without it nothing but `save_path` is
            written.
        eval_environment: scenarios that evaluations use and training never sees.
        auto_adjust: see `TrainingConfig.auto_adjust`.
        alerts: what to be told of while the run goes on: a list of rules such as
            `{"metric": "reward_mean", "below": 0.2}`, or a dict with `rules` and where they go, such as
            `{"rules": [...], "webhook_env": "ALERT_WEBHOOK"}`; see `AlertSettings`.
        resume: continue the run in `output_dir` from its last checkpoint. Agent, environment, reward and settings must
            be those of the run.
        resume_from: start from the weights and optimizer state of this checkpoint or run folder.
        quiet: no progress and no report on the terminal.
        chosen: for `AutoTrainer`: what it picked, for the run folder and the report.

    Returns:
        The same agent, with trained float32 weights.

    Raises:
        ConfigError: a setting is unknown or wrong, or `reward_fn` is no reward.
        DataError: scenarios or recorded conversations are missing or malformed.
        ModelError: the model cannot be loaded or does not fit.
        RunFolderError: a folder cannot be written or holds a run already.
        CheckpointError: there is nothing to resume, or it is of another model.
        TrainingStopped: the run cannot go on; the message says why.
        asyncio.CancelledError: the task was cancelled, as by Ctrl-C under `asyncio.run`. With `output_dir` what was
            done is saved; a note of the error, and (unless `quiet`) the terminal, say how to continue.
    """
    _require_parties(agent, environment)
    for name, path in (("output_dir", output_dir), ("save_path", save_path), ("resume_from", resume_from)):
        if path is not None and not (isinstance(path, str | os.PathLike) and str(path).strip()):
            raise ConfigError(f"{name} is {path!r}; it must be the path of a folder")
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise ConfigError(
            f"callbacks is {callbacks!r}; it must be a list, for example callbacks=[DiagnosticsMonitor()]"
        )
    asked = None if alerts is None else AlertSettings.of(alerts)
    arguments = {"num_episodes": num_episodes, "profile": profile, "auto_adjust": auto_adjust}
    overrides = _settings(config_overrides, {name: value for name, value in arguments.items() if value is not None})
    config = TrainingConfig.from_profile(overrides.pop("profile", "balanced"), **overrides)
    reward = default_reward() if reward_fn is None else as_reward(reward_fn)
    if save_path is not None and not (
        resume and output_dir is not None and holds_the_same(Path(save_path), Path(output_dir) / FINAL_MODEL)
    ):
        _require_free(Path(save_path))
    if config.eval_scenarios_file is not None:
        if eval_environment is not None:
            raise ConfigError("eval_environment and eval_scenarios_file both say what to evaluate on: give one of them")
        eval_environment = copy.copy(environment)
        eval_environment.scenarios = environment.read_scenarios(config.eval_scenarios_file)
    if not quiet:
        with Progress() as progress:
            if reward_fn is None:
                progress.say(DEFAULT_NOTICE)
            announce_arguments(config, agent, overrides, progress.say)
    report = await execute(
        Run(
            agent,
            environment,
            reward,
            config,
            evaluation=eval_environment,
            callbacks=callbacks,
            folder=None if output_dir is None else Path(output_dir),
            save_path=save_path,
            alerts=asked,
            quiet=quiet,
            resume=resume,
            resume_from=None if resume_from is None else Path(resume_from),
            again=f"train(..., output_dir={str(output_dir)!r}, resume=True)" if chosen is None else chosen.again,
            before=None if chosen is None else chosen.keep,
            after=None if chosen is None else chosen.tell,
        )
    )
    if not quiet:
        sys.stdout.write(report.text)
    return agent


def _require_parties(agent: object, environment: object) -> None:
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(f"train(agent, ...) got {agent!r}; pass a MultiTurnAgent or a subclass of it")
    require_begun(agent)
    if not isinstance(environment, Environment):
        raise ConfigError(f"train(agent, environment) got {environment!r}; pass an Environment")


def _settings(overrides: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that a call gives, each of them once."""
    overrides = {} if overrides is None else overrides
    if not isinstance(overrides, Mapping):
        raise ConfigError(
            f"config_overrides is {overrides!r}; it must be a dict of hyperparameters by name, for example "
            '{"learning_rate": 1e-5}'
        )
    for name in overrides:
        if not isinstance(name, str):
            raise ConfigError(
                f"config_overrides has the key {name!r}; its keys must be names of hyperparameters, for example "
                '"learning_rate"'
            )
    twice = [
        f"{name} is {value!r} as an argument and {overrides[name]!r} in config_overrides: give it once"
        for name, value in arguments.items()
        if name in overrides
    ]
    if twice:
        raise ConfigError(*twice)
    return {**overrides, **arguments}


def _require_free(path: Path) -> None:
    """Look before a long run whether its result can be saved at its end."""
    if path.exists():
        raise ConfigError(f"save_path {path} exists already; it is never overwritten: choose another one")
    try:
        path.mkdir(parents=True)
        path.rmdir()
    except OSError as error:
        raise RunFolderError(f"save_path {path} cannot be written ({error.strerror}); choose another one") from error


class AutoTrainer:
    """Looks at the task first, and picks the settings of the run from what it sees.

    A few groups are played before training (`training.baseline`); `training.choosing` says what follows from them. Each
    choice is told with its reason, at the beginning and in the report, and kept in the run folder, so that a resumed
    run makes the same.

    Args:
        auto_adjust: see `TrainingConfig.auto_adjust`.
        early_stopping: stop when evaluations no longer improve.
        patience: episodes without improvement before that; at least 3 evaluations.

    Example:
        trained = await AutoTrainer().train(agent, environment, num_episodes=1000)
    """

    def __init__(self, auto_adjust: bool = True, early_stopping: bool = True, patience: int = 50) -> None:
        own: dict[str, Any] = {"auto_adjust": auto_adjust, "early_stopping": early_stopping, "patience": patience}
        TrainingConfig.from_profile("balanced", **own)  # refuse what is wrong at once
        self._own = own

    async def train(
        self,
        agent: AgentT,
        environment: Environment,
        num_episodes: int | None = None,
        *,
        reward_fn: RewardFunction | object | None = None,
        config_overrides: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        save_path: str | Path | None = None,
        output_dir: str | Path | None = None,
        eval_environment: Environment | None = None,
        alerts: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> AgentT:
        """Look, choose, train. Arguments, result and errors are those of `train`.

        Args:
            config_overrides: settings that are not to be chosen.
            agent, environment, num_episodes, reward_fn, callbacks, save_path, output_dir, eval_environment, alerts,
                resume, quiet: see `train`.
        """
        _require_parties(agent, environment)
        given = _settings(config_overrides, self._own)
        reward = default_reward() if reward_fn is None else as_reward(reward_fn)
        folder = None if output_dir is None else Path(output_dir)
        # What the run would refuse is refused before the look, which takes its time. Whether to stop early is chosen.
        config = TrainingConfig.from_profile(**{"profile": "balanced", **given, "early_stopping": False})
        asked = None if alerts is None else AlertSettings.of(alerts)
        sought = Run(agent, environment, reward, config, evaluation=eval_environment, folder=folder, alerts=asked)
        require_possible(replace(sought, resume=resume), build_records(config))
        chosen = Chosen.remembered(folder) if resume and folder is not None else None
        with Progress() as progress:
            say = (lambda _: None) if quiet else progress.say
            if chosen is None:
                chosen = await Chosen.by_looking(agent, environment, reward, eval_environment, given)
            for line in chosen.lines:
                say(line)
        agent.config = replace(agent.config, **chosen.of_agent)
        settings = {"profile": "balanced"} | given | chosen.of_run
        return await train(
            agent,
            environment,
            num_episodes,
            settings.pop("profile"),
            reward_fn=reward_fn,
            config_overrides=settings,
            callbacks=callbacks,
            save_path=save_path,
            output_dir=output_dir,
            eval_environment=eval_environment,
            alerts=alerts,
            resume=resume,
            quiet=quiet,
            chosen=chosen,
        )
