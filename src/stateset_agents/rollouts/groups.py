"""Groups of episodes, all in flight at once.

Invariant: an episode that fails never disturbs another one, and never enters a baseline. A group's baseline is taken
over those of its episodes that were scored; a group with fewer than two of them teaches nothing, so it is dropped and
counted. An error that stops the run cancels all episodes, and none leaves anything behind.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..agents import Agent
from ..core.environment import Environment
from ..core.outcome import Outcome
from ..core.reward import GroupReward, RewardFunction, as_reward
from ..core.scenario import Scenario
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from .episode import Played, judge_together, play_unjudged

OnEpisode = Callable[[MultiTurnTrajectory], Awaitable[None] | None]

MIN_SCORED = 2
"""Scored episodes that a group needs to have a baseline."""


async def collect_groups(
    agent: Agent,
    environment: Environment,
    scenarios: Sequence[Scenario],
    reward: RewardFunction | object | None,
    *,
    group_size: int,
    key: str,
    max_concurrent: int = 64,
    on_episode: OnEpisode | None = None,
    environment_timeout: float | None = None,
    reward_timeout: float | None = None,
) -> list[TrajectoryGroup]:
    """Play each scenario `group_size` times.

    Args:
        agent: forked for each episode under `f"{key}/{scenario.id}/{sample}"`.
        environment, reward, environment_timeout, reward_timeout: as in `play_episode`. A `GroupReward` is asked
            about each group as a whole, without the episodes that failed.
        scenarios: one group each. One that is listed again goes on counting samples, so that no episode is repeated.
        group_size: episodes of each group.
        key: names this collection; another key gives other episodes.
        max_concurrent: episodes in flight at once.
        on_episode: told of each episode as it ends, in that order; with a `GroupReward` when its group is judged.

    Returns:
        One group for each scenario, in their order; samples in their order within a group.

    Raises:
        ValueError: `group_size` or `max_concurrent` is less than 1.
        StatesetError: what stops the run (see `play_episode`), or what `on_episode` raises.
    """
    if group_size < 1 or max_concurrent < 1:
        raise ValueError(f"group_size and max_concurrent must be >= 1, not {group_size} and {max_concurrent}")
    judge = None if reward is None else as_reward(reward)
    await agent.initialize()
    free = asyncio.Semaphore(max_concurrent)

    async def play(scenario: Scenario, sample: int) -> Played:
        own = f"{key}/{scenario.id}/{sample}"
        async with free:
            played = await play_unjudged(agent, environment, scenario, key=own, environment_timeout=environment_timeout)
            if judge is not None and not isinstance(judge, GroupReward):
                await judge_together([played], judge, key=own, reward_timeout=reward_timeout)
        if not isinstance(judge, GroupReward):
            await _tell(on_episode, played[0])
        return played

    async def finish(scenario: Scenario, first: int, members: Sequence[asyncio.Task[Played]]) -> TrajectoryGroup:
        played = [await member for member in members]
        if isinstance(judge, GroupReward):
            async with free:
                own = f"{key}/{scenario.id}/{first}"
                await judge_together(played, judge, key=own, reward_timeout=reward_timeout)
            for episode, _ in played:
                await _tell(on_episode, episode)
        return TrajectoryGroup.of(scenario.id, [episode for episode, _ in played])

    counted: Counter[str] = Counter()
    playing: list[asyncio.Task[Played]] = []
    groups: list[asyncio.Task[TrajectoryGroup]] = []
    for scenario in scenarios:
        first = counted[scenario.id]
        counted[scenario.id] += group_size
        members = [asyncio.create_task(play(scenario, first + sample)) for sample in range(group_size)]
        playing += members
        groups.append(asyncio.create_task(finish(scenario, first, members)))
    tasks: list[asyncio.Task[Any]] = [*playing, *groups]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [group.result() for group in groups]


async def _tell(on_episode: OnEpisode | None, episode: MultiTurnTrajectory) -> None:
    if on_episode is not None:
        told = on_episode(episode)
        if inspect.isawaitable(told):
            await told


def with_baseline(groups: Iterable[TrajectoryGroup]) -> list[TrajectoryGroup]:
    """The groups that have a baseline: at least two scored episodes."""
    return [group for group in groups if len(group.trajectories) >= MIN_SCORED]


@dataclass(frozen=True)
class RolloutCounts:
    """What became of a number of episodes.

    Attributes:
        episodes: all of them.
        scored: those with a reward.
        truncated: scored ones that a limit cut.
        unscored: those that ended well and that the reward declined to score.
        failures: how many failed, by who failed.
        dropped_groups: groups with fewer than two scored episodes.
        edited_turns: assistant turns that code wrote or edited; they are not trained.
    """

    episodes: int = 0
    scored: int = 0
    truncated: int = 0
    unscored: int = 0
    failures: dict[Outcome, int] = field(default_factory=dict)
    dropped_groups: int = 0
    edited_turns: int = 0

    @classmethod
    def of(cls, groups: Iterable[TrajectoryGroup]) -> RolloutCounts:
        """Count the episodes of some groups."""
        groups = list(groups)
        scored = [episode for group in groups for episode in group.trajectories]
        left = [episode for group in groups for episode in group.failures]
        return cls(
            episodes=len(scored) + len(left),
            scored=len(scored),
            truncated=sum(episode.outcome is Outcome.TRUNCATED for episode in scored),
            unscored=sum(episode.outcome.scored for episode in left),
            failures=dict(Counter(episode.outcome for episode in left if not episode.outcome.scored)),
            dropped_groups=len(groups) - len(with_baseline(groups)),
            edited_turns=sum(episode.edited_turns for episode in [*scored, *left]),
        )

    @property
    def failed(self) -> int:
        """How many failed, whoever did."""
        return sum(self.failures.values())
