"""Rewards: what a conversation was worth.

The documented address of everything in `core.rewards`; each noun has its own file there, `rewards/base.py` first.
"""

from __future__ import annotations

from .rewards.base import RewardFunction, RewardResult, RewardType
from .rewards.build import BUILT_IN, DEFAULT_NOTICE, build_rewards, default_reward, load_reward
from .rewards.composite import COMBINATION_METHODS, CompositeReward, as_reward
from .rewards.conciseness import ConcisenessReward
from .rewards.correctness import CorrectnessReward
from .rewards.engagement import EngagementReward
from .rewards.function import FunctionReward, reward_function
from .rewards.ground_truth import load_ground_truth
from .rewards.group import GroupReward
from .rewards.helpfulness import HelpfulnessReward
from .rewards.safety import SafetyReward

__all__ = [
    "BUILT_IN",
    "COMBINATION_METHODS",
    "DEFAULT_NOTICE",
    "CompositeReward",
    "ConcisenessReward",
    "CorrectnessReward",
    "EngagementReward",
    "FunctionReward",
    "GroupReward",
    "HelpfulnessReward",
    "RewardFunction",
    "RewardResult",
    "RewardType",
    "SafetyReward",
    "as_reward",
    "build_rewards",
    "default_reward",
    "load_ground_truth",
    "load_reward",
    "reward_function",
]
