"""From a checkpoint's records to the parts that they describe.

Invariant: what a checkpoint says is believed where this package's own parts are told how to be; what else it names is
refused by `trust.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..agents.config import AgentConfig
from ..agents.loading import read_agent_record
from ..agents.multi_turn import MultiTurnAgent
from ..agents.tool_agent import ToolAgent
from ..agents.toolbox import ToolLimits
from ..checkpoints import PROGRESS, Checkpoint
from ..config import RunConfig
from ..config.schema import AgentSection, EnvironmentSection, LoggingSection
from ..config.training import TrainingConfig
from ..config.users import UserSection
from ..core.environment.task import CRITERIA, as_tasks
from ..core.errors import CheckpointError, ConfigError
from ..core.reward import RewardFunction, build_rewards
from ..core.scenario import Scenario, as_scenarios
from ..core.tools import BUILT_IN, load_tool
from .trust import foreign, is_own_model, mappings, plain, refusal

AgentMaker = Callable[[AgentConfig], MultiTurnAgent]

_ENVIRONMENTS = {"ConversationEnvironment": "conversation", "TaskEnvironment": "task", "Unplayed": "conversation"}


def step_of(checkpoint: Checkpoint) -> int | None:
    """After which step it was saved; None where it does not say."""
    for stem in (PROGRESS, "trainer"):
        if stem in checkpoint.manifest.records:
            step = _record(checkpoint, stem).get("step")
            if isinstance(step, int):
                return step
            raise _malformed(checkpoint, stem, f"step is {step!r:.60}, no number")
    return None


def recorded_scenarios(checkpoint: Checkpoint) -> tuple[list[dict[str, Any]], bool]:
    """The scenarios to look at a trained agent with: those that it never saw where the run has some.

    Returns:
        Their mappings, and whether training never saw them. None where the run had no scenarios at all.
    """
    if "evaluation" in checkpoint.manifest.records:
        key = "held_out" if _record(checkpoint, "evaluation").get("held_out") else "scenarios"
        held_out = _scenarios(checkpoint, "evaluation", key)
        if held_out:
            return held_out, True
    if _record(checkpoint, "environment").get("class") == "Unplayed":
        return [], False
    return trained_scenarios(checkpoint), False


def trained_scenarios(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The scenarios that the agent was trained on, as mappings."""
    return _scenarios(checkpoint, "scenarios", "scenarios")


def recorded_config(checkpoint: Checkpoint, device: str | None = None) -> RunConfig:
    """A config with the agent's model and the environment of the run; everything else as it is by default.

    Args:
        checkpoint: opened.
        device: of models that play a user.

    Raises:
        ConfigError: the environment is code of somebody's own, or its user is behind a server.
        CheckpointError: the records are malformed, or of another version.
    """
    environment = _environment_section(checkpoint)
    path = checkpoint.path
    if environment.type == "custom":
        raise refusal(path, f"the environment {environment.class_ or _record(checkpoint, 'environment').get('class')}")
    if environment.success_criteria is not None and environment.success_criteria not in CRITERIA:
        raise refusal(path, f"the criterion {environment.success_criteria}")
    user = environment.user
    if user is not None and "endpoint" in {user.type, *(one.type for one in user.users or ())}:
        raise refusal(path, "a server that plays the user")
    own = read_agent_record(path)["config"]["model_name"]
    for one in () if user is None else (user, *(user.users or ())):
        if one.type == "model" and not is_own_model(path, name := one.model_name or own):
            raise refusal(path, f"the model {name} that plays the user")
    agent = AgentSection(model_name=own, device=device)
    return RunConfig(
        agent=agent,
        environment=environment,
        rewards=(),
        combination_method="weighted_sum",
        training=TrainingConfig.from_profile("balanced"),
        logging=LoggingSection(),
        environment_variables={},
        output_dir=path,
        config_file=path / "environment.json",
    )


def scenarios_of(checkpoint: Checkpoint, config: RunConfig) -> list[Scenario]:
    """`recorded_scenarios` as the environment of the config takes them.

    Raises:
        ConfigError: a task is judged by code of somebody's own.
        DataError: the record is malformed.
    """
    recorded, _ = recorded_scenarios(checkpoint)
    if config.environment.type != "task" or not recorded:
        return as_scenarios(recorded, strict=False)
    for task in recorded:
        for action in mappings(task.get("required_actions")):
            if "check" in action:
                raise refusal(checkpoint.path, f"the check {action['check']} of {action.get('name')!r}")
    return as_tasks(recorded)


def recorded_reward(checkpoint: Checkpoint) -> RewardFunction:
    """What the run trained for.

    Raises:
        ConfigError: a part of it is code of somebody's own or asks a server.
        CheckpointError: the record is malformed, or of another version.
    """
    entry = _record(checkpoint, "reward").get("config")
    if not isinstance(entry, Mapping):  # `build_rewards` takes a list as well, and nobody writes one here
        raise _malformed(checkpoint, "reward", f"config is {entry!r:.60}, no mapping")
    for named in foreign(entry, checkpoint.path):
        raise refusal(checkpoint.path, named)
    try:
        return build_rewards(entry)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path / 'reward.json'}: {error}") from None


def recorded_agent(checkpoint: Checkpoint) -> AgentMaker:
    """What makes the agent of the run from its settings.

    Raises:
        ConfigError: it is of a class of somebody's own, or has tools that are.
    """
    record = read_agent_record(checkpoint.path)
    if record.get("class") == "MultiTurnAgent":
        return MultiTurnAgent
    if record.get("class") != "ToolAgent":
        raise refusal(checkpoint.path, f"the agent class {record.get('class')}")
    names = [str(tool.get("name")) for tool in mappings(record.get("tools"))]
    specs = _tool_specs(checkpoint)
    if [spec.get("name") for spec in specs] != names or any(
        str(spec.get("function")) not in BUILT_IN for spec in specs
    ):
        told = f"the tools {', '.join(names)} of its agent"
        raise refusal(checkpoint.path, told, _tools_as_config(record, names, specs))
    tools = [load_tool(spec, None, f"tools[{place}]") for place, spec in enumerate(specs)]
    try:
        limits = ToolLimits(**record.get("tool_limits", {}))
    except TypeError as error:
        raise CheckpointError(f"{checkpoint.path / 'agent.json'}: tool_limits: {error}") from None
    return lambda config: ToolAgent(config, tools, tool_format=record.get("tool_format", "auto"), limits=limits)


def _tool_specs(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    agent = _section(checkpoint, "agent")
    specs = agent.get("tools") if agent.get("type") == "tool" else None
    return [{key: value for key, value in spec.items() if value is not None} for spec in mappings(specs)]


def _tools_as_config(record: Mapping[str, Any], names: list[str], specs: list[dict[str, Any]]) -> str:
    """The YAML that names the agent's tools; where a run without a config left no function, one to be filled in."""
    functions = {str(spec.get("name")): str(spec["function"]) for spec in specs if "function" in spec}
    agent: dict[str, Any] = {
        "type": "tool",
        "tools": [{"name": name, "function": functions.get(name, f"my_tools.{name}")} for name in names],
    }
    if record.get("tool_format", "auto") != "auto":
        agent["tool_format"] = record["tool_format"]
    if record.get("tool_limits", asdict(ToolLimits())) != asdict(ToolLimits()):
        agent["tool_limits"] = record["tool_limits"]
    return yaml.safe_dump({"agent": agent}, sort_keys=False, width=10**6)


def _environment_section(checkpoint: Checkpoint) -> EnvironmentSection:
    """The section of the run's config; of a run without one, what the environment said of itself."""
    section = dict(_section(checkpoint, "environment"))
    if "type" in section:
        section = {key: value for key, value in section.items() if key not in ("scenarios", "scenarios_file")}
        section.pop("tasks_file", None)
        section = plain(section, checkpoint.path)
    else:
        section = _told(checkpoint)
    try:
        return EnvironmentSection.model_validate(section)
    except ValidationError as error:
        told = error.errors()[0]
        place = ".".join(map(str, told["loc"]))
        raise CheckpointError(f"{checkpoint.path}: environment.{place} is not understood: {told['msg']}") from None


def _told(checkpoint: Checkpoint) -> dict[str, Any]:
    """The section that an environment's own record stands for."""
    record = _record(checkpoint, "environment")
    kind = _ENVIRONMENTS.get(str(record.get("class")))
    if kind is None:
        raise refusal(checkpoint.path, f"the environment {record.get('class')}")
    section = {"type": kind, "max_turns": record.get("max_turns"), "persona": record.get("persona")}
    if kind == "task":
        section["success_criteria"] = record.get("success_criteria")
    user = record.get("user")
    if user is not None and not isinstance(user, Mapping):
        raise _malformed(checkpoint, "environment", f"user is {user!r:.60}, no mapping")
    if user is not None and user != {"type": "scripted"}:
        section["user"] = _user(user, checkpoint.path)
    return {key: value for key, value in section.items() if value is not None}


def _user(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The section that a user's description stands for."""
    if about.get("type") == "mixture":
        users = [{**_user(one, path), "share": one["share"]} for one in about["users"]]
        return {"type": "mixture", "seed": about["seed"], "users": users}
    if about.get("type") == "scripted":
        return {"type": "scripted"}
    if about.get("type") != "model" or about.get("kind") != "local" or "prompt" in about:
        raise refusal(path, f"the user {about.get('model', about.get('type'))}")
    known = {key: about[key] for key in UserSection.model_fields if key in about and key != "users"}
    return {**known, "model_name": about["model"]}


def recorded_greeting(checkpoint: Checkpoint) -> str | None:
    """What served conversations begin with; None where the run does not say."""
    greeting = _section(checkpoint, "agent").get("greeting")
    if greeting is not None and not isinstance(greeting, str):
        raise _malformed(checkpoint, "run", f"agent.greeting is {greeting!r:.60}, no text")
    return greeting


def recorded_timeouts(checkpoint: Checkpoint) -> tuple[float | None, float | None]:
    """Seconds for one call of the environment and of the reward, as the run had them."""
    section = _section(checkpoint, "training")
    environment, reward = (section.get(name) for name in ("environment_timeout", "reward_timeout"))
    for value in (environment, reward):
        if value is not None and not isinstance(value, int | float):
            raise _malformed(checkpoint, "run", f"a timeout is {value!r:.60}, no number of seconds")
    return environment, reward


def _section(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    """A section of the run's settings; empty for a checkpoint that says nothing of it."""
    section = _record(checkpoint, "run").get(name, {}) if "run" in checkpoint.manifest.records else {}
    if not isinstance(section, Mapping):
        raise _malformed(checkpoint, "run", f"{name} is {section!r:.60}, no mapping")
    return section


def _record(checkpoint: Checkpoint, stem: str) -> Mapping[str, Any]:
    record = checkpoint.record(stem)
    if not isinstance(record, Mapping):
        raise _malformed(checkpoint, stem, f"it is {record!r:.60}, no mapping")
    return record


def _scenarios(checkpoint: Checkpoint, stem: str, key: str) -> list[dict[str, Any]]:
    found = _record(checkpoint, stem).get(key)
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return list(found)
    if found is None and stem == "evaluation":
        return []
    raise _malformed(checkpoint, stem, f"{key} is {found!r:.60}, no list of scenarios")


def _malformed(checkpoint: Checkpoint, stem: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{checkpoint.path / stem}.json is not understood: {problem}")
