"""Rewards that combine, or that need a model or a service; the plain ones are in `core.rewards`.

Importing this room loads none of them: a name is fetched on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .group_judge import GroupJudgeReward
    from .learned import LearnedReward
    from .llm_judge import LLMJudgeReward
    from .multi_objective_reward import MultiObjectiveReward
    from .semantic_similarity import SemanticSimilarityReward

_HOMES = {
    "GroupJudgeReward": "group_judge",
    "LLMJudgeReward": "llm_judge",
    "LearnedReward": "learned",
    "MultiObjectiveReward": "multi_objective_reward",
    "SemanticSimilarityReward": "semantic_similarity",
}

__all__ = [
    "GroupJudgeReward",
    "LLMJudgeReward",
    "LearnedReward",
    "MultiObjectiveReward",
    "SemanticSimilarityReward",
]


def __getattr__(name: str) -> Any:
    """Fetch a reward from its home.

    Raises:
        AttributeError: the room has no such reward.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
