"""A run from a config file: what `grpo-train` does once the config is resolved."""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from ..agents.multi_turn import MultiTurnAgent
from ..config import RunConfig
from ..core.errors import ConfigError
from .execution import execute
from .from_config import (
    build_agent,
    build_environment,
    build_eval_environment,
    build_reward,
    idle_reward_keys,
    with_weights,
)
from .run import Run, RunReport

log = logging.getLogger(__name__)


def run_training(config: RunConfig, *, resume: bool = False, resume_from: Path | None = None) -> RunReport:
    """Train as the config says, and write everything to its run folder.

    Args:
        config: resolved.
        resume: continue the run in `config.output_dir` from its last checkpoint.
        resume_from: start from this checkpoint, in a new run folder.

    Returns:
        The report.

    Raises:
        StatesetError: see `execution.execute`.
    """
    return asyncio.run(_train(config, resume, resume_from))


async def _train(config: RunConfig, resume: bool, resume_from: Path | None) -> RunReport:
    run = run_of(config)
    for key, reason in idle_reward_keys(config, run.reward):
        log.warning("%s has no effect: %s.", key, reason)
    again = resume_command()
    return await execute(replace(run, resume=resume, resume_from=resume_from, again=again, catch_signals=True))


def run_of(config: RunConfig) -> Run:
    """The run that a config file describes.

    Raises:
        ConfigError, DataError: a part of it cannot be built.
    """
    agent = build_agent(config)
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(config.located("agent.class", f"{type(agent).__name__} has no model that could be trained"))
    environment = build_environment(config)
    reward = build_reward(config, environment)
    config = with_weights(config, reward)
    return Run(
        agent,
        environment,
        reward,
        config.training,
        evaluation=build_eval_environment(config),
        folder=config.output_dir,
        source=config,
    )


def resume_command() -> str:
    """The command that was typed, made one that resumes."""
    arguments, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument == "--resume-from":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--resume-from="):
            arguments.append(argument)
    return shlex.join(["grpo-train", *arguments, "--resume"])
