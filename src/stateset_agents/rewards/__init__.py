"""Rewards that combine, or that need a model or a service; the plain ones are in `core.rewards`.

Importing this room loads none of them: a name is fetched on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import fetched

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

__getattr__, __dir__ = fetched(__name__, _HOMES)
