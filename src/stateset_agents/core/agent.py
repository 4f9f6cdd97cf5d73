"""The documented address of the agents, which live in `agents/`. Nothing on a floor below theirs imports this."""

from __future__ import annotations

from ..agents import (
    Agent,
    AgentConfig,
    AgentRuntime,
    MultiTurnAgent,
    ToolAgent,
    ToolLimits,
    agent_from_record,
    agent_record,
    load_agent_from_checkpoint,
)

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentRuntime",
    "MultiTurnAgent",
    "ToolAgent",
    "ToolLimits",
    "agent_from_record",
    "agent_record",
    "load_agent_from_checkpoint",
]
