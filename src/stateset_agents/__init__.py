"""Train multi-turn conversational agents with GRPO.

Invariant: importing this package loads no other room. A public name is fetched from its home on first use
(PEP 562), so that neither torch nor transformers is paid for by code that only wants a type or a version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import fetched
from ._version import __version__

if TYPE_CHECKING:
    from .core.agent import Agent, AgentConfig, MultiTurnAgent, ToolAgent, load_agent_from_checkpoint
    from .core.environment import ConversationEnvironment, Environment, EnvironmentState, EpisodeStatus
    from .core.reward import (
        CompositeReward,
        ConcisenessReward,
        CorrectnessReward,
        EngagementReward,
        HelpfulnessReward,
        RewardFunction,
        RewardResult,
        RewardType,
        SafetyReward,
        reward_function,
    )
    from .core.scenario import Scenario, load_scenarios
    from .core.tools import Tool
    from .core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
    from .training.train import train

_HOMES = {
    "Agent": "core.agent",
    "AgentConfig": "core.agent",
    "CompositeReward": "core.reward",
    "ConcisenessReward": "core.reward",
    "ConversationEnvironment": "core.environment",
    "ConversationTurn": "core.trajectory",
    "CorrectnessReward": "core.reward",
    "EngagementReward": "core.reward",
    "Environment": "core.environment",
    "EnvironmentState": "core.environment",
    "EpisodeStatus": "core.environment",
    "HelpfulnessReward": "core.reward",
    "MultiTurnAgent": "core.agent",
    "MultiTurnTrajectory": "core.trajectory",
    "RewardFunction": "core.reward",
    "RewardResult": "core.reward",
    "RewardType": "core.reward",
    "SafetyReward": "core.reward",
    "Scenario": "core.scenario",
    "Tool": "core.tools",
    "ToolAgent": "core.agent",
    "TrajectoryGroup": "core.trajectory",
    "load_agent_from_checkpoint": "core.agent",
    "load_scenarios": "core.scenario",
    "reward_function": "core.reward",
    "train": "training.train",
}

__all__ = [
    "Agent",
    "AgentConfig",
    "CompositeReward",
    "ConcisenessReward",
    "ConversationEnvironment",
    "ConversationTurn",
    "CorrectnessReward",
    "EngagementReward",
    "Environment",
    "EnvironmentState",
    "EpisodeStatus",
    "HelpfulnessReward",
    "MultiTurnAgent",
    "MultiTurnTrajectory",
    "RewardFunction",
    "RewardResult",
    "RewardType",
    "SafetyReward",
    "Scenario",
    "Tool",
    "ToolAgent",
    "TrajectoryGroup",
    "__version__",
    "load_agent_from_checkpoint",
    "load_scenarios",
    "reward_function",
    "train",
]

__getattr__, __dir__ = fetched(__name__, _HOMES)
