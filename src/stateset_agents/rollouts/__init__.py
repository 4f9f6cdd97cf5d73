"""Rollouts: many episodes at once, in groups, failures apart from rewards."""

from .episode import Reward, play_episode
from .groups import MIN_SCORED, RolloutCounts, collect_groups, with_baseline

__all__ = ["MIN_SCORED", "Reward", "RolloutCounts", "collect_groups", "play_episode", "with_baseline"]
