"""An agent as a record in a checkpoint, and back.

Invariant: the record is what the agent was told (its config), never how to run code. Which class reads it back is the
caller's choice.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import CheckpointError, ConfigError
from ..models.names import is_stub
from .config import AgentConfig
from .multi_turn import MultiTurnAgent, require_begun
from .tool_agent import ToolAgent

RECORD = "agent.json"
MODEL = "model"
"""Subfolder of a checkpoint that may hold the model; otherwise it lies beside the record."""

_NOT_RECORDED = ("device", "trust_remote_code")
"""What the machine and its operator decide, wherever the agent was trained."""

AgentT = TypeVar("AgentT", bound=MultiTurnAgent)


def agent_record(agent: MultiTurnAgent) -> dict[str, Any]:
    """What `agent.json` holds: the class, the fields of `AgentConfig` that hold on any machine, and tools."""
    settings = {name: value for name, value in asdict(agent.config).items() if name not in _NOT_RECORDED}
    record: dict[str, Any] = {"class": type(agent).__name__, "config": settings}
    if isinstance(agent, ToolAgent):
        record |= {"tool_format": agent.tool_format, "tool_limits": asdict(agent.limits)}
        if agent.tools:
            record["tools"] = [tool.definition()["function"] for tool in agent.tools]
    return record


def agent_from_record(
    record: Mapping[str, Any],
    agent_class: Callable[..., AgentT] = MultiTurnAgent,  # type: ignore[assignment]
    *,
    weights: str | None = None,
    device: str | None = None,
) -> AgentT:
    """Make an agent out of `agent_record`'s result. Its model is loaded on first use.

    Args:
        record: read from `agent.json`.
        agent_class: a class whose first parameter is `config` or `model_name`, or a function of a config.
        weights: folder to load instead of the recorded model name.
        device: where the model goes; None chooses.

    Raises:
        CheckpointError: the record is malformed or was written by another version.
        ConfigError: `agent_class` cannot be called with a config alone, or makes an agent that lacks a recorded tool.
    """
    config = replace(_config_of(record), device=device)
    agent = agent_class(config.model_name if _takes_a_name(agent_class) else config)
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(f"agent_class made {agent!r}, which is no MultiTurnAgent")
    require_begun(agent)
    _require_tools(agent, record)
    agent.config = config
    agent.load_from(weights)
    return agent


async def load_agent_from_checkpoint(
    path: str | Path,
    agent_class: Callable[..., AgentT] = MultiTurnAgent,  # type: ignore[assignment]
    *,
    device: str | None = None,
) -> AgentT:
    """Load a trained agent, ready to use.

    Args:
        path: a run folder, one of its `checkpoints/step-*`, its `final_model`, or a `save_path`.
        agent_class: as in `agent_from_record`.
        device: "cpu", "cuda", "cuda:1", ...; None: the GPU if there is a CUDA one, else the CPU.

    Raises:
        CheckpointError: there is no checkpoint, it is incomplete or without a model, or its `agent.json` is malformed.
        ConfigError: see `agent_from_record`.
    """
    from ..checkpoints import resolve_checkpoint

    agent = agent_in(resolve_checkpoint(path), agent_class, device=device)
    await agent.initialize()
    return agent


def agent_in(
    folder: Path,
    agent_class: Callable[..., AgentT] = MultiTurnAgent,  # type: ignore[assignment]
    *,
    device: str | None = None,
) -> AgentT:
    """The agent of a checkpoint's folder. Its model is loaded on first use.

    Raises:
        CheckpointError, ConfigError: see `load_agent_from_checkpoint`.
    """
    record = read_agent_record(folder)
    return agent_from_record(record, agent_class, weights=_weights_in(folder, _config_of(record)), device=device)


def read_agent_record(folder: Path) -> dict[str, Any]:
    """What a checkpoint's `agent.json` holds, with every field of the config.

    Raises:
        CheckpointError: there is none, or it is malformed.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}), so {folder} tells of no agent") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is no valid JSON: {error}") from None
    config = asdict(_config_of(record))
    return {**record, "config": config}


def _require_tools(agent: MultiTurnAgent, record: Mapping[str, Any]) -> None:
    """A record says which tools an agent had, and never how to run them: its class, or whoever makes it, has them."""
    recorded = record.get("tools", ())
    named = [str(tool["name"]) for tool in recorded if isinstance(tool, Mapping) and "name" in tool]
    has = [tool.name for tool in agent.tools] if isinstance(agent, ToolAgent) else []
    missing = [name for name in named if name not in has]
    if missing:
        raise ConfigError(
            f"this agent was trained with the tools {', '.join(named)}, and {type(agent).__name__} lacks "
            f"{', '.join(missing)}; give them: "
            "load_agent_from_checkpoint(path, agent_class=lambda config: ToolAgent(config, tools=[...]))"
        )


def _weights_in(folder: Path, config: AgentConfig) -> str | None:
    """The model folder of a checkpoint; None for a stub, which has none."""
    if is_stub(config.model_name):
        return None
    for place in (folder, folder / MODEL):
        if (place / "config.json").is_file():
            return str(place)
    raise CheckpointError(f"{folder} holds no model: neither config.json nor {MODEL}/config.json is there")


def _config_of(record: Mapping[str, Any]) -> AgentConfig:
    settings = record.get("config") if isinstance(record, Mapping) else None
    if not isinstance(settings, Mapping):
        raise CheckpointError(f"{RECORD} holds no config; it must be {{'class': ..., 'config': {{...}}}}")
    known = {f.name for f in fields(AgentConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise CheckpointError(f"{RECORD}: config.{unknown[0]} is unknown to this version; known: {names}")
    try:
        return AgentConfig(**{name: value for name, value in settings.items() if name not in _NOT_RECORDED})
    except ConfigError as error:
        raise CheckpointError(f"{RECORD}: {error}") from None


def _takes_a_name(agent_class: Callable[..., Any]) -> bool:
    """Whether the class wants a model name instead of a config.

    Raises:
        ConfigError: it wants neither.
    """
    parameters = list(inspect.signature(agent_class).parameters.values())
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    first = parameters[0].name if parameters else ""
    if first == "model_name" and len(required) <= 1:
        return True
    if first and len(required) <= 1 and (first == "config" or not inspect.isclass(agent_class)):
        return False
    name = getattr(agent_class, "__name__", repr(agent_class))
    raise ConfigError(
        f"{name}({', '.join(p.name for p in parameters)}) cannot be made from a config; "
        f"pass a function that does it: agent_class=lambda config: {name}(...)"
    )
