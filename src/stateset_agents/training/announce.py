"""The first lines of a run: what it amounts to, and what a reader of its numbers should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.multi_turn import MultiTurnAgent
from ..config.schema import AgentSection, EnvironmentSection
from ..config.training import TrainingConfig, count
from ..config.unused import unused_keys
from ..core.environment import Environment
from ..core.records import Record
from ..core.reward import RewardFunction
from .run import Say


def announce(
    agent: MultiTurnAgent,
    config: TrainingConfig,
    environment: Environment,
    evaluation: Environment | None,
    reward: RewardFunction,
    say: Say,
    data: Sequence[Record] | None = None,
) -> None:
    """Tell the size of the run and of its evaluations, and what environment and reward have to say about it."""
    plan = config.plan
    if data is not None:
        say(
            f"{count(plan.total_steps, 'step')} of {count(plan.conversations_per_step, 'record')} from "
            f"{config.data_file}: {count(len(data), 'record')}, each read about "
            f"{plan.total_episodes / len(data):.1f} times"
        )
        if _overrides(type(agent), "process_turn"):
            say(f"{type(agent).__name__}.process_turn is called in evaluations only: records are read as they are")
    else:
        say(
            f"{count(plan.total_steps, 'step')} of {plan.conversations_per_step} conversations "
            f"({count(plan.groups_per_step, 'scenario')} x {config.num_generations}), "
            f"{count(len(environment.episode_scenarios()), 'scenario')} in all"
        )
    every = plan.eval_every_steps
    if data is not None and not every:
        return  # nothing is played
    if every and every <= plan.total_steps:
        evaluated = len((evaluation or environment).episode_scenarios())
        where = "training" if evaluation is None and data is None else "held-out"
        say(
            f"{count(plan.total_steps // every, 'evaluation')} of "
            f"{count(evaluated * config.eval_samples, 'conversation')} "
            f"({count(evaluated, f'{where} scenario')} x {config.eval_samples}); eval_every: 0 leaves them out"
        )
    announce_parts(agent, environment, reward, say)


def announce_parts(agent: MultiTurnAgent, environment: Environment, reward: RewardFunction, say: Say) -> None:
    """Tell what environment, reward and agent have to say about a run."""
    scenarios = [scenario.to_dict() for scenario in environment.episode_scenarios()]
    for note in (*environment.notices(), *reward.notices(scenarios)):
        say(note)
    for name, reason in environment.unused():
        say(f"{name} has no effect: {reason}")
    kind = type(agent)
    if _overrides(kind, "generate_response") and not _overrides(kind, "process_turn"):
        say(
            f"{kind.__name__}.generate_response has no effect in training and evaluation: a conversation's turns are "
            "played by process_turn; override that one"
        )


def _overrides(kind: type[MultiTurnAgent], method: str) -> bool:
    return getattr(kind, method) is not getattr(MultiTurnAgent, method)


def announce_arguments(config: TrainingConfig, agent: MultiTurnAgent, given: Mapping[str, Any], say: Say) -> None:
    """What a config file's notes tell, for settings that came as arguments.

    Args:
        config: resolved.
        agent: whose sampling settings count.
        given: the hyperparameters that the caller named.
        say: how to tell it.
    """
    for note in config.plan.notes:
        say(note)
    truncation = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    changed = [
        f"{key} {getattr(agent.config, key)}" for key, off in truncation.items() if getattr(agent.config, key) != off
    ]
    if changed and config.data_file is None:
        say(
            f"Training samples at temperature {agent.config.temperature} only; {', '.join(changed)} apply to "
            "generate_response and evaluation."
        )
    origins = {f"training.{name}": name for name in given}
    for key, reason in unused_keys(AgentSection(), EnvironmentSection(), config, origins):
        say(f"{key.removeprefix('training.')} has no effect: {reason}")
