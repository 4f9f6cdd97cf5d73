"""Our rewards as the one reward function that TRL asks.

Invariant: an episode is scored once, where it was played, by the same code as everywhere else. A reward that returns no
finite number, nothing, or raises leaves its episode unscored: TRL gets None, which enters no baseline and moves
nothing; how many and why is said. It is never 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ...core.trajectory import MultiTurnTrajectory, TrajectoryGroup

log = logging.getLogger(__name__)


def given_reward(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    episode_reward: Sequence[float | None],
    **_: Any,
) -> list[float | None]:
    """TRL's reward function: what `TRLBatch` brought along, one for each prompt.

    Raises:
        ValueError: there is not one for each prompt.
    """
    if len(episode_reward) != len(prompts):
        raise ValueError(f"{len(episode_reward)} rewards for {len(prompts)} conversations")
    return list(episode_reward)


class UnscoredLog:
    """Says which episodes were not scored: how many of a round, and the first reason of each kind."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._told: set[str] = set()
        self.count = 0

    def update(self, step: int, groups: Sequence[TrajectoryGroup]) -> None:
        """Look at a round; the same reason is told once in a run, and every one goes to the log file."""
        episodes = [episode for group in groups for episode in group.failures]
        self.count += len(episodes)
        for episode in episodes:
            reason = reason_of(episode)
            log.info("step %d: %s was not scored: %s", step, episode.key, reason)
            if reason not in self._told:
                self._told.add(reason)
                self._warn(f"step {step}: {len(episodes)} conversations were not scored and are not trained; {reason}")


def reason_of(episode: MultiTurnTrajectory) -> str:
    """Why an episode has no reward."""
    if episode.error is not None:
        return f"{episode.outcome.value} failed: {episode.error}"
    unscored = (episode.metadata.get("reward") or {}).get("unscored", "it gave no score")
    return f"the reward has nothing to judge by: {unscored}"
