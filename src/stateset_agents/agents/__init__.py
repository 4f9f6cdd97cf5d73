"""Agents: what is trained, evaluated and served."""

from ..config.schema import DEFAULT_MODEL
from .base import Agent
from .config import AgentConfig
from .loading import agent_from_record, agent_record, load_agent_from_checkpoint
from .local_chat import LocalChat
from .multi_turn import MultiTurnAgent
from .runtime import AgentRuntime, load_runtime
from .session import EngineFailed
from .tool_agent import ToolAgent
from .toolbox import ToolLimits

__all__ = [
    "DEFAULT_MODEL",
    "Agent",
    "AgentConfig",
    "AgentRuntime",
    "EngineFailed",
    "LocalChat",
    "MultiTurnAgent",
    "ToolAgent",
    "ToolLimits",
    "agent_from_record",
    "agent_record",
    "load_agent_from_checkpoint",
    "load_runtime",
]
