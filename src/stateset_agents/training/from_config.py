"""From a resolved config to the objects that a run needs: agent, environments, reward, records.

Invariant: nothing that the config says is lost on the way, and whatever cannot be built is a ConfigError or DataError
that names the place in the config. Code is imported only where the config names it, from its own folder or the
installed packages. No model is loaded here: an agent loads on first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..agents.base import Agent
from ..agents.config import AgentConfig
from ..agents.multi_turn import MultiTurnAgent, require_begun
from ..agents.tool_agent import ToolAgent
from ..agents.toolbox import ToolLimits
from ..config import RunConfig
from ..config.resolve import DEFAULT_COMBINATION
from ..config.training import TrainingConfig
from ..core.dotted import import_dotted
from ..core.environment import ConversationEnvironment, Environment, EnvironmentState
from ..core.environment.task import TaskEnvironment, load_tasks, task_completion_function
from ..core.errors import ConfigError, DataError, ModelError, StatesetError, raised_at
from ..core.records import Record, read_records
from ..core.reward import CompositeReward, GroupReward, RewardFunction, build_rewards, default_reward
from ..core.scenario import Scenario, as_scenarios, load_scenarios
from ..core.tools import Tool, as_tools, load_tool
from ..core.trajectory import ConversationTurn
from ..core.users import User
from ..environments.from_config import build_user

_AGENT_FIELDS = (
    "model_name",
    "system_prompt",
    "temperature",
    "max_new_tokens",
    "top_p",
    "top_k",
    "repetition_penalty",
    "memory_window",
    "context_compression",
    "dtype",
    "device",
    "trust_remote_code",
)


class Unplayed(Environment):
    """The environment of a run that plays nothing: it learns from a file, and nothing is evaluated."""

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """Never called.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("nothing can be played: the run has no scenarios; name a file of them in scenarios_file")


def build_agent(config: RunConfig) -> Agent:
    """The agent of `config.agent`.

    A class of the user's own is made from an `AgentConfig`, or from a model name if its first parameter is called
    `model_name`; then what the config file states replaces what the class has chosen, and nothing else does.

    Raises:
        ConfigError: `agent.class` cannot be imported, is no Agent, or cannot be made.
    """
    settings = {name: getattr(config.agent, name) for name in _AGENT_FIELDS}
    if config.agent.type == "tool":
        return _tool_agent(config, AgentConfig(**settings))
    if config.agent.type == "multi_turn":
        return MultiTurnAgent(AgentConfig(**settings))
    found = _class_named(config, "agent.class", Agent)
    parameters = list(inspect.signature(found).parameters)
    by_name = parameters[:1] == ["model_name"]
    given = () if not parameters else (config.agent.model_name,) if by_name else (AgentConfig(**settings),)
    agent: Agent = _made(config, "agent.class", found, Agent, *given)
    if isinstance(agent, MultiTurnAgent):
        try:
            require_begun(agent)
        except ConfigError as error:
            raise ConfigError(config.located("agent.class", f"agent.class: {error}")) from None
    if by_name and isinstance(agent, MultiTurnAgent):
        stated = {name: value for name, value in settings.items() if f"agent.{name}" in config.origins}
        agent.config = replace(agent.config, **stated)
    return agent


def _tool_agent(config: RunConfig, settings: AgentConfig) -> ToolAgent:
    """An agent with the tools of the config, which names their functions."""
    tools: list[Tool] = []
    problems: list[str] = []
    for index, spec in enumerate(config.agent.tools or ()):
        place = f"agent.tools[{index}]"
        try:
            tools.append(load_tool(spec.model_dump(exclude_none=True), config.base_dir, place))
        except ConfigError as error:
            problems += [config.located(place, problem) for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    limits = ToolLimits(**config.agent.tool_limits.model_dump()) if config.agent.tool_limits else None
    try:
        tools = as_tools(tools, "agent.tools")
        return ToolAgent(settings, tools, tool_format=config.agent.tool_format or "auto", limits=limits)
    except ConfigError as error:
        raise ConfigError(*(config.located("agent.tools", problem) for problem in error.problems)) from error


def build_environment(config: RunConfig) -> Environment:
    """The environment of `config.environment`, with its training scenarios.

    A run that learns from a file needs none: without scenarios of its own it has those of its evaluation, or none.

    Raises:
        ConfigError: `environment.class` cannot be imported, is no Environment, or cannot be made.
        DataError: the scenarios are missing or wrong.
    """
    if config.environment.type == "task" and config.environment.tasks_file is not None:
        return environment_of(config, scenarios_in(config, config.environment.tasks_file))
    scenarios = _scenarios(config, config.environment.scenarios_file)
    if config.training.data_file is not None and scenarios is None and config.environment.type != "custom":
        return build_eval_environment(config) or Unplayed()
    return environment_of(config, scenarios)


def build_eval_environment(config: RunConfig) -> Environment | None:
    """The same environment with the scenarios of `training.eval_scenarios_file`; None where there is no such file.

    Raises:
        ConfigError, DataError: as `build_environment`.
    """
    file = config.training.eval_scenarios_file
    return None if file is None else environment_of(config, scenarios_in(config, file))


def build_records(training: TrainingConfig) -> list[Record] | None:
    """What the run learns from, if that is a file.

    Raises:
        DataError: the file is missing or malformed.
    """
    file = training.data_file
    return None if file is None else read_records(Path(file), pairs=training.recipe.kind == "preference")


def build_reward(config: RunConfig, environment: Environment | None = None) -> RewardFunction:
    """The reward of `config.rewards`, or the default one, which the config's notes announce.

    Args:
        config: the run.
        environment: whose scenarios the reward must be able to judge; not checked if None, or if nothing is played.

    Raises:
        ConfigError: a reward cannot be made, or has nothing to judge the scenarios by.
        DataError: a ground-truth file is malformed.
    """
    reward: RewardFunction
    if config.rewards:
        specs = [spec.model_dump(exclude_none=True) for spec in config.rewards]
        try:
            reward = build_rewards(specs, config.combination_method, config.base_dir)
        except ConfigError as error:
            problems = (config.located(_key_of(problem), problem) for problem in error.problems)
            raise ConfigError(*problems) from error
    else:
        reward = default_reward()
    nothing = config.training.data_file is not None and not config.training.eval_every
    if environment is not None and not nothing:
        try:
            reward.require([scenario.to_dict() for scenario in environment.episode_scenarios()])
        except ConfigError as error:
            raise ConfigError(*(config.located("rewards", problem) for problem in error.problems)) from error
    return reward


def with_weights(config: RunConfig, reward: RewardFunction) -> RunConfig:
    """The config with the weights that its rewards turned out to have, for those that it does not weigh itself.

    Args:
        config: the run.
        reward: what `build_reward` made of it.
    """
    if not config.rewards or not isinstance(reward, CompositeReward):
        return config
    pairs = zip(config.rewards, reward.rewards.values(), strict=True)
    return replace(config, rewards=tuple(spec.model_copy(update={"weight": part.weight}) for spec, part in pairs))


def idle_reward_keys(config: RunConfig, reward: RewardFunction) -> list[tuple[str, str]]:
    """(key, reason) of what the config says about rewards and this one, alone as it is, has no use for.

    Args:
        config: the run.
        reward: what `build_reward` made of it.
    """
    lone = len(config.rewards) == 1
    compares = lone and isinstance(reward, GroupReward)
    found = []
    if compares and config.rewards[0].weight not in (None, 1.0):
        found.append(("rewards[0].weight", f"{reward.label} compares conversations and is no part of a sum"))
    if config.combination_method in ("min", "max"):
        why = f"combination_method {config.combination_method} takes the scores as they are"
        weighed = (place for place, spec in enumerate(config.rewards) if spec.weight not in (None, 1.0))
        found += [(f"rewards[{place}].weight", why) for place in weighed if not compares]
    if "combination_method" in config.origins and config.combination_method != DEFAULT_COMBINATION:
        if not config.rewards:
            found.append(("combination_method", "there are no rewards, and the default one has its own"))
        elif compares or (isinstance(reward, CompositeReward) and lone and _weights(reward) == [1.0]):
            found.append(("combination_method", "there is one reward, and nothing to combine it with"))
    return [(key, reason) for key, reason in found if key not in dict(config.unused)]


def _weights(reward: CompositeReward) -> list[float]:
    return [part.weight for part in reward.rewards.values()]


def _scenarios(config: RunConfig, file: str | None) -> list[Scenario] | None:
    if file is not None:
        return scenarios_in(config, file)
    if config.environment.scenarios is None:
        return None
    try:
        return as_scenarios(config.environment.scenarios, where="environment.scenarios")
    except DataError as error:
        place = config.place("environment.scenarios")
        raise DataError("\n".join(f"data error in {place}: {line}" for line in str(error).splitlines())) from None


def scenarios_in(config: RunConfig, file: str | Path) -> list[Scenario]:
    """The scenarios of a file. Which of a mixture's need lines of a script, the environment knows.

    Raises:
        DataError: it is missing or holds no scenarios of the environment's kind.
    """
    if config.environment.type == "task":
        return load_tasks(file)
    user = config.environment.user
    return load_scenarios(file, user_turns=user is None or user.scripted)


def _user(config: RunConfig) -> User:
    settings = {name: getattr(config.agent, name) for name in ("model_name", "dtype", "device", "trust_remote_code")}
    try:
        return build_user(config.environment.user, AgentConfig(**settings))
    except ConfigError as error:
        place = "environment.user.type"
        raise ConfigError(*(config.located(place, f"environment.user: {told}") for told in error.problems)) from error
    except ModelError as error:
        raise ModelError(f"environment.user: {error}") from error


def environment_of(config: RunConfig, scenarios: list[Scenario] | None) -> Environment:
    """The environment of `config.environment` with these scenarios, whatever files it names.

    Raises:
        ConfigError, DataError: as `build_environment`.
    """
    section = config.environment
    if section.type == "task":
        criterion = section.success_criteria or task_completion_function
        try:
            user = None if section.user is None else _user(config)
            return TaskEnvironment(
                scenarios or [], criterion, section.max_turns, section.persona, user, base_dir=config.base_dir
            )
        except ConfigError as error:
            keys = {True: "environment.success_criteria", False: "environment.tasks_file"}  # a task names its checks
            told = ((keys[problem.startswith("success_criteria")], problem) for problem in error.problems)
            raise ConfigError(*(config.located(key, problem) for key, problem in told)) from error
    if section.type != "custom":
        return ConversationEnvironment(scenarios or [], section.max_turns, section.persona, _user(config))
    found = _class_named(config, "environment.class", Environment)
    given: dict[str, Any] = {"scenarios": scenarios}
    for name in ("max_turns", "persona"):
        given[name] = getattr(section, name) if f"environment.{name}" in config.origins else None
    given["user"] = None if section.user is None else _user(config)
    given = {name: value for name, value in given.items() if value is not None}
    accepted = inspect.signature(found).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        left = {name: value for name, value in given.items() if name not in accepted}
        given = {name: value for name, value in given.items() if name in accepted}
    else:
        left = {}
    environment: Environment = _made(config, "environment.class", found, Environment, **given)
    for name, value in left.items():
        if name in ("persona", "user"):
            place = "environment.user.type" if name == "user" else "environment.persona"
            message = f"environment.{name} is set, but {found.__name__} takes no {name}"
            raise ConfigError(config.located(place, message))
        # Every environment has these two, whether its own constructor knows them or not.
        setattr(environment, name, value)
    return environment


def _class_named(config: RunConfig, key: str, base: type[Any]) -> Any:
    """The class that the config names at `key`.

    Raises:
        ConfigError: it is not found, or does not derive from `base`.
    """
    section = config.agent if key.startswith("agent") else config.environment
    try:
        found = import_dotted(str(section.class_), config.base_dir, what=key)
    except ConfigError as error:
        raise ConfigError(*(config.located(key, problem) for problem in error.problems)) from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        message = f'{key} is "{section.class_}", which is no {base.__name__} class'
        raise ConfigError(config.located(key, message, f"derive it from stateset_agents' {base.__name__}"))
    return found


def _made(
    config: RunConfig, key: str, found: Callable[..., Any], base: type[Any], *arguments: Any, **keywords: Any
) -> Any:
    """Call the user's class; what it raises becomes a problem of the config that named it."""
    name = getattr(found, "__name__", str(found))
    try:
        made = found(*arguments, **keywords)
    except StatesetError:
        raise
    except Exception as error:  # the user's own code may raise anything; the config that named it is what to look at
        call = ", ".join([*(type(argument).__name__ for argument in arguments), *keywords])
        place = raised_at(error)
        message = f"{key}: {name}({call}) raised {type(error).__name__}: {error}" + (f" ({place})" if place else "")
        raise ConfigError(config.located(key, message)) from error
    if not isinstance(made, base):
        raise ConfigError(config.located(key, f"{key}: {name} made {made!r}, which is no {base.__name__}"))
    return made


def _key_of(problem: str) -> str:
    """The reward that a problem begins with: "rewards[2]" of "rewards[2].module is ..."."""
    return problem.partition("]")[0] + "]" if problem.startswith("rewards[") else "rewards"
