"""Rewards that combine, or that need a model or a service; the plain ones are in `core.rewards`."""

from .multi_objective_reward import MultiObjectiveReward

__all__ = ["MultiObjectiveReward"]
