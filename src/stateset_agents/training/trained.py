"""A trained agent with what it was trained on and for: how every door opens a checkpoint.

Invariant: a part is made when it is asked for, so that whoever only talks to the agent needs no reward. What the
operator's config file states wins over the checkpoint's records, key by key for agent and environment; weights always
come from the checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..agents.loading import agent_in, read_agent_record
from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import Checkpoint, read_checkpoint, resolve_checkpoint
from ..config import RunConfig, load_config
from ..config.environ import environment_overrides
from ..config.training import count
from ..core.environment import Environment
from ..core.errors import ConfigError, DataError
from ..core.reward import RewardFunction
from ..core.scenario import Scenario
from ..models.names import names_a_folder
from .from_checkpoint import (
    recorded_agent,
    recorded_config,
    recorded_greeting,
    recorded_reward,
    recorded_scenarios,
    recorded_timeouts,
    scenarios_of,
    step_of,
    trained_scenarios,
)
from .from_config import (
    build_agent,
    build_environment,
    build_eval_environment,
    build_reward,
    environment_of,
    scenarios_in,
)
from .trust import is_own_model


@dataclass(frozen=True)
class Trained:
    """What `open_trained` found.

    Attributes:
        checkpoint: the folder, verified.
        step: after which step it was saved; None where it does not say.
        notes: what a reader of results should know: which scenarios these are, and what came from the config file.
    """

    checkpoint: Path
    step: int | None
    notes: tuple[str, ...]
    _opened: Checkpoint = field(repr=False)
    _config: RunConfig | None = field(repr=False)
    _scenarios_file: Path | None = field(repr=False)
    _device: str | None = field(repr=False)

    @cached_property
    def agent(self) -> MultiTurnAgent:
        """The agent. Its model is loaded on first use.

        Raises:
            ConfigError: its class or a tool is code of somebody's own, and no config names it.
            CheckpointError: its record is malformed.
        """
        return self._make_agent()

    @property
    def timeouts(self) -> tuple[float | None, float | None]:
        """Seconds for one call of the environment and of the reward, as the run or the config had them."""
        environment, reward = recorded_timeouts(self._opened)
        if self._config is None:
            return environment, reward
        stated = self._config.training.model_dump(include=_stated(self._config, "training"))
        return stated.get("environment_timeout", environment), stated.get("reward_timeout", reward)

    @property
    def greeting(self) -> str | None:
        """What served conversations begin with, as the config or the run had it; None where neither says."""
        config = self._section("agent")
        if config is not None and config.agent.greeting is not None:
            return config.agent.greeting
        return recorded_greeting(self._opened)

    def untrained(self) -> MultiTurnAgent:
        """Another such agent, with the weights from which the run began. Its model is loaded on first use.

        Raises:
            ConfigError, CheckpointError: as `agent`.
        """
        agent = self._make_agent()
        agent.load_from(None)
        return agent

    def seen(self, scenarios: Sequence[Scenario]) -> int:
        """How many of these the agent was trained on, whatever they were called."""
        known = {json.dumps({**one, "id": ""}, sort_keys=True) for one in trained_scenarios(self._opened)}
        return sum(json.dumps({**one.to_dict(), "id": ""}, sort_keys=True) in known for one in scenarios)

    def _make_agent(self) -> MultiTurnAgent:
        config = self._section("agent")
        if config is None:
            return agent_in(self.checkpoint, recorded_agent(self._opened), device=self._device)

        def made(_: object) -> MultiTurnAgent:
            agent = build_agent(config)
            if isinstance(agent, MultiTurnAgent):
                return agent
            problem = f"{type(agent).__name__} has no model to load weights into"
            raise ConfigError(config.located("agent.class", problem))

        stated = _stated(config, "agent")
        maker = made if {"type", "class", "tools"} & stated else recorded_agent(self._opened)
        agent = agent_in(self.checkpoint, maker, device=self._device or config.agent.device)
        own = stated & agent.config.__dataclass_fields__.keys() - {"model_name", "device"}
        agent.config = replace(agent.config, **{name: getattr(config.agent, name) for name in own})
        return agent

    def _environment_config(self) -> RunConfig:
        """A config whose environment has what the file states, and for the rest what the run had."""
        config = self._config
        if config is None or not (_stated(config, "environment") or config.training.eval_scenarios_file):
            return recorded_config(self._opened, self._device)
        agent, environment = config.agent, config.environment
        if "agent.model_name" not in config.origins:  # a user without a model of its own is a copy of the agent's
            agent = agent.model_copy(update={"model_name": self.model_name})
        stated = _stated(config, "environment")
        if "type" not in stated:
            recorded = recorded_config(self._opened).environment
            others = {"scenarios", "scenarios_file"} if recorded.type == "task" else {"tasks_file", "success_criteria"}
            for name in sorted(others & stated):
                problem = (
                    f'environment.{name} is not for the environment of the run, which is of type "{recorded.type}"'
                )
                raise ConfigError(config.located(f"environment.{name}", problem, "state environment.type for another"))
            environment = recorded.model_copy(update={name: getattr(environment, name) for name in stated if name})
        return replace(config, agent=agent, environment=environment)

    @cached_property
    def environment(self) -> Environment:
        """Who the agent talks to, with `scenarios`.

        Raises:
            ConfigError: it is code of somebody's own, or its user is behind a server, and no config names it.
            DataError: the scenarios are missing or malformed.
        """
        config = self._environment_config()
        if self._scenarios_file is not None:
            if config.config_file.parent == self.checkpoint:
                # Code that the operator's file names lies beside that file, never in the checkpoint.
                config = replace(config, config_file=self._scenarios_file.absolute())
            return environment_of(config, scenarios_in(config, self._scenarios_file))
        if _names_scenarios(config):
            return build_eval_environment(config) or build_environment(config)
        scenarios = scenarios_of(self._opened, config)
        if not scenarios:
            raise DataError(f"the run of {self.checkpoint} played no scenarios: name some with --scenarios-file")
        return environment_of(config, scenarios)

    @cached_property
    def reward(self) -> RewardFunction:
        """What the agent was trained for, or what the config file measures it by.

        Raises:
            ConfigError: a part of it is code of somebody's own or asks a server, and no config names it.
        """
        config = self._section("rewards")
        return recorded_reward(self._opened) if config is None else build_reward(config)

    @cached_property
    def model_name(self) -> str:
        """What the agent's model was before the run."""
        return str(read_agent_record(self.checkpoint)["config"]["model_name"])

    @property
    def may_load_untrained(self) -> bool:
        """Whether the model of before the run is one to load: a folder that the checkpoint alone names is not."""
        if not names_a_folder(self.model_name) or is_own_model(self.checkpoint, self.model_name):
            return True
        return self._config is not None and self._config.agent.model_name == self.model_name

    @property
    def judged_as_trained(self) -> bool:
        """Whether `reward` is what the agent was trained for; otherwise it is the config file's."""
        return self._section("rewards") is None

    @property
    def trained_for(self) -> object:
        """The record of the run's reward, to compare with another; None where there is none."""
        return self._opened.record("reward") if "reward" in self._opened.manifest.records else None

    @property
    def scenarios(self) -> Sequence[Scenario]:
        """What is played: of a file, else held out by the run, else those that it was trained on."""
        return self.environment.episode_scenarios()

    def _section(self, name: str) -> RunConfig | None:
        """The config file where it has something to say about a section."""
        return self._config if self._config is not None and _stated(self._config, name) else None


def open_trained(
    path: str | Path,
    *,
    config_file: str | Path | None = None,
    scenarios_file: str | Path | None = None,
    device: str | None = None,
) -> Trained:
    """Open a checkpoint with all that is needed to evaluate, serve or talk to it. No model is loaded.

    Args:
        path: a run folder, one of its `checkpoints/step-*`, its `final_model`, or a `save_path`.
        config_file: the operator's own config, as `grpo-train` takes it; what its sections `agent`, `environment` and
            `rewards` state wins over the checkpoint's records, and may name code.
        scenarios_file: what to play instead.
        device: "cpu", "cuda", "cuda:1", ...; None: as the config or `GRPO_USE_GPU` say, else the GPU if there is one.

    Raises:
        CheckpointError: there is no checkpoint, or it is incomplete or damaged.
        ConfigError: the config file is wrong.
        DataError: a file that the config names is missing.
    """
    config = None
    if config_file is not None:
        config = load_config(config_file, needs_scenarios=False)
        config.apply_environment_variables()  # before torch is loaded: it reads CUDA_VISIBLE_DEVICES only once
    if device is None:
        found, problems = environment_overrides(os.environ)
        if problems:
            raise ConfigError(*problems)
        device = next((override.value for override in found if override.key == "agent.device"), None)
    file = None if scenarios_file is None else Path(scenarios_file)
    opened = read_checkpoint(resolve_checkpoint(path), verify=False)
    notes = (*_config_notes(config), *_scenario_notes(opened, config, file))
    return Trained(opened.path, step_of(opened), notes, opened, config, file, device)


def _stated(config: RunConfig, section: str) -> set[str]:
    """The keys of a section of which the file itself says something; "" stands for the section as a whole."""
    own = f"{config.config_file.name}:"
    keys = (key.replace("[", ".").split(".") for key, origin in config.origins.items() if origin.startswith(own))
    return {"".join(key[1:2]) for key in keys if key[0] == section}


def _names_scenarios(config: RunConfig) -> bool:
    section = config.environment
    named = section.tasks_file if section.type == "task" else section.scenarios or section.scenarios_file
    return section.type == "custom" or bool(named) or config.training.eval_scenarios_file is not None


def _config_notes(config: RunConfig | None) -> list[str]:
    if config is None:
        return []
    stated = [name for name in ("agent", "environment", "rewards") if _stated(config, name)]
    left = [name for name in ("agent", "environment", "rewards") if name not in stated]
    told = f"{', '.join(stated) or 'nothing'} from {config.config_file.name}, weights from the checkpoint"
    return [told + (f", and so {', '.join(left)}" if left else "")]


def _scenario_notes(opened: Checkpoint, config: RunConfig | None, file: Path | None) -> list[str]:
    if file is not None:
        return [f"scenarios: those of {file}"]
    if config is not None and _names_scenarios(config):
        named = config.training.eval_scenarios_file
        return [f"scenarios: those of {config.config_file.name if named is None else named}"]
    if "environment" not in opened.manifest.records:  # an agent that was saved by itself, to be talked to
        return []
    recorded, held_out = recorded_scenarios(opened)
    if held_out:
        return [f"scenarios: the {count(len(recorded), 'scenario')} that the run held out of training"]
    if not recorded:
        return []
    return [
        f"scenarios: the {count(len(recorded), 'scenario')} that the agent was trained on, as the run held none out; "
        "how it does on others, only others show: --scenarios-file"
    ]
