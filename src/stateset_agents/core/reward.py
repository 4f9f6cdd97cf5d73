"""Rewards: what a conversation was worth.

The documented address of everything in `core.rewards`; each noun has its own file there, `rewards/base.py` first.
"""

from __future__ import annotations

from .rewards.base import RewardFunction, RewardResult, RewardType
from .rewards.build import DEFAULT_NOTICE, build_rewards, default_reward, load_reward
from .rewards.composite import COMBINATION_METHODS, CompositeReward, as_reward
from .rewards.conciseness import ConcisenessReward
from .rewards.correctness import CorrectnessReward
from .rewards.engagement import EngagementReward
from .rewards.exact_match import ExactMatchReward
from .rewards.format import FormatReward
from .rewards.function import FunctionReward, reward_function
from .rewards.ground_truth import load_ground_truth
from .rewards.group import GroupReward
from .rewards.helpfulness import HelpfulnessReward
from .rewards.kinds import KINDS, RewardKind
from .rewards.length import LengthPenalty
from .rewards.numeric_match import NumericMatchReward
from .rewards.options import Option
from .rewards.repetition import RepetitionPenalty
from .rewards.rubric import RubricReward
from .rewards.safety import SafetyReward
from .rewards.task_completion import TaskCompletionReward
from .rewards.tool_success import ToolSuccessReward

__all__ = [
    "COMBINATION_METHODS",
    "DEFAULT_NOTICE",
    "KINDS",
    "CompositeReward",
    "ConcisenessReward",
    "CorrectnessReward",
    "EngagementReward",
    "ExactMatchReward",
    "FormatReward",
    "FunctionReward",
    "GroupReward",
    "HelpfulnessReward",
    "LengthPenalty",
    "NumericMatchReward",
    "Option",
    "RepetitionPenalty",
    "RewardFunction",
    "RewardKind",
    "RewardResult",
    "RewardType",
    "RubricReward",
    "SafetyReward",
    "TaskCompletionReward",
    "ToolSuccessReward",
    "as_reward",
    "build_rewards",
    "default_reward",
    "load_ground_truth",
    "load_reward",
    "reward_function",
]
