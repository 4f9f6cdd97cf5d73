"""Evaluate an agent: the path of training up to the reward, and no further.

Invariant: evaluating changes nothing. The agent is forked, its own sampling settings apply (top-p, top-k and repetition
penalty included, unlike in training), and with the same weights and key every conversation is the same again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..agents import Agent
from ..core.environment import Environment
from ..core.errors import DataError
from ..core.reward import RewardFunction, as_reward
from ..core.scenario import Scenario, as_scenarios
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..rollouts import collect_groups
from ..rollouts.groups import OnEpisode
from .metrics import SuccessCriterion
from .result import EvaluationResult


async def evaluate(
    agent: Agent,
    environment: Environment,
    scenarios: Sequence[Scenario],
    reward: RewardFunction | object | None,
    *,
    samples: int = 1,
    key: str = "evaluation",
    max_concurrent: int = 64,
    on_episode: OnEpisode | None = None,
    environment_timeout: float | None = None,
    reward_timeout: float | None = None,
) -> EvaluationResult:
    """Play each scenario `samples` times and score the conversations.

    Args:
        agent: left as it was.
        environment: plays the other side.
        scenarios: with unique ids; mappings are accepted too.
        reward: a reward function, or what `as_reward` makes one of; None leaves the environment's step rewards alone.
        samples: episodes for each scenario; several show how much is luck.
        key: names the sampling noise. Give two evaluations the same key to compare their weights alone.
        max_concurrent: episodes in flight at once.
        on_episode: told of each episode as it ends.
        environment_timeout, reward_timeout: as in `play_episode`.

    Raises:
        ConfigError: `reward` is not a reward.
        DataError: no scenarios, repeated ids, or a scenario whose first prompt does not fit into the model's context.
        ValueError: `samples` or `max_concurrent` is less than 1.
        StatesetError: whatever else stops a rollout; see `play_episode`.
    """
    played = as_scenarios(scenarios)
    if not played:
        raise DataError("there are no scenarios to evaluate on; give at least one")
    judge = None if reward is None else as_reward(reward)
    await agent.initialize()
    player = agent.fork(key)
    player.training_sampling = False
    start = time.monotonic()
    groups = await collect_groups(
        player,
        environment,
        played,
        judge,
        group_size=samples,
        key=key,
        max_concurrent=max_concurrent,
        on_episode=on_episode,
        environment_timeout=environment_timeout,
        reward_timeout=reward_timeout,
    )
    return EvaluationResult(
        tuple(played),
        tuple(groups),
        SuccessCriterion(None if judge is None else judge.attainable),
        samples,
        key,
        time.monotonic() - start,
        environment.describe_user(),
    )


def evaluated_so_far(
    episodes: Iterable[MultiTurnTrajectory],
    environment: Environment,
    scenarios: Sequence[Scenario],
    reward: RewardFunction,
    *,
    samples: int,
    key: str,
    seconds: float,
) -> EvaluationResult:
    """What an evaluation that was stopped had found: the scenarios and episodes that were over.

    Args:
        episodes: what `on_episode` was told, in any order.
        environment, scenarios, reward, samples, key: what `evaluate` was given.
        seconds: since it began.
    """
    ended: dict[str, list[MultiTurnTrajectory]] = {}
    for episode in sorted(episodes, key=lambda one: int(one.key.rpartition("/")[2])):
        ended.setdefault(episode.scenario_id, []).append(episode)
    reached = tuple(scenario for scenario in scenarios if scenario.id in ended)
    groups = tuple(TrajectoryGroup.of(scenario.id, ended[scenario.id]) for scenario in reached)
    criterion = SuccessCriterion(reward.attainable)
    return EvaluationResult(reached, groups, criterion, samples, key, seconds, environment.describe_user())
