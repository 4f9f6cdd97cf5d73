"""Rollouts: many episodes at once, in groups, failures apart from rewards."""

from .episode import play_episode
from .groups import MIN_SCORED, RolloutCounts, collect_groups, with_baseline

__all__ = ["MIN_SCORED", "RolloutCounts", "collect_groups", "play_episode", "with_baseline"]
