"""What the agent does before it is trained: a few groups of conversations, played and scored.

Invariant: looking changes nothing, and with the same agent and seed it sees the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..agents.multi_turn import MultiTurnAgent
from ..core.environment import Environment
from ..core.reward import RewardFunction
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..evaluation import SuccessCriterion, group_metrics
from ..rollouts import collect_groups

SCENARIOS, SAMPLES = 8, 4
"""Of an analysis, at most: 32 conversations, as many as the larger profiles train on in one step."""


@dataclass(frozen=True)
class Baseline:
    """Numbers of an analysis. None stands for what there was nothing to measure by.

    Attributes:
        conversations: that were played.
        failed: of them, those that failed or could not be scored.
        reward: mean.
        attainable: highest reward that a conversation can get, if known.
        diversity: mean deviation of the rewards inside a group.
        equal: share of groups with equal rewards.
        alike: share of groups whose conversations are the same word for word.
        turns: mean number of replies in a conversation.
        tokens: mean number of sampled tokens in a conversation.
        cut: share of replies that max_new_tokens cut.
        truncated: share of conversations that another limit cut.
        scenarios: of an evaluation.
        parameters: of the model; None for one without weights.
    """

    conversations: int
    failed: int
    reward: float | None
    attainable: float | None
    diversity: float | None
    equal: float | None
    alike: float | None
    turns: float | None
    tokens: float | None
    cut: float | None
    truncated: float | None
    scenarios: int
    parameters: int | None

    def __str__(self) -> str:
        if self.reward is None:
            return f"of {self.conversations} conversations none could be scored"
        most = "" if self.attainable is None else f" of {self.attainable:.3g}"
        parts = [
            f"{self.conversations} conversations before training: mean reward {self.reward:.3f}{most}",
            *([] if self.diversity is None else [f"deviation inside groups {self.diversity:.3f}"]),
            *([] if self.equal is None else [f"groups with equal rewards {self.equal:.0%}"]),
            *([] if self.turns is None else [f"replies {self.turns:.1f}"]),
            *([] if self.tokens is None else [f"tokens {self.tokens:.0f}"]),
            *([] if self.cut is None else [f"replies cut {self.cut:.0%}"]),
            *([f"failed {self.failed}"] if self.failed else []),
        ]
        return ", ".join(parts)


async def look(
    agent: MultiTurnAgent,
    environment: Environment,
    reward: RewardFunction,
    evaluation: Environment | None = None,
    *,
    seed: int = 0,
) -> Baseline:
    """Play the first scenarios as training would, and count.

    Args:
        agent: left as it was, but loaded.
        environment, reward: of the run.
        evaluation: environment of its evaluations; None evaluates on the training scenarios.
        seed: of the run.
    """
    scenarios = environment.episode_scenarios()
    player = agent.fork("")
    player.training_sampling = True
    groups = await collect_groups(
        player, environment, scenarios[:SCENARIOS], reward, group_size=SAMPLES, key=f"{seed}/analysis"
    )
    model = agent.runtime.model
    counted = group_metrics(groups, SuccessCriterion(reward.attainable))
    played = [episode for group in groups for episode in group.trajectories]
    replies = counted["replies"]
    return Baseline(
        conversations=int(counted["step_episodes"] or 0),
        failed=int((counted["failed"] or 0) + (counted["unscored"] or 0)),
        reward=counted["reward_mean"],
        attainable=reward.attainable,
        diversity=counted["reward_diversity"],
        equal=counted["zero_variance_share"],
        alike=_share([_same(group) for group in groups if len(group.trajectories) > 1]),
        turns=counted["length_mean"],
        tokens=sum(episode.trained_tokens for episode in played) / len(played) if played else None,
        cut=(counted["cut_replies"] or 0) / replies if replies else None,
        truncated=(counted["truncated"] or 0) / len(played) if played else None,
        scenarios=len((evaluation or environment).episode_scenarios()),
        parameters=None if model is None else sum(weights.numel() for weights in model.model.parameters()),
    )


def _same(group: TrajectoryGroup) -> bool:
    return len({_said(episode) for episode in group.trajectories}) == 1


def _said(episode: MultiTurnTrajectory) -> tuple[str, ...]:
    return tuple(turn.content for turn in episode.turns)


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None
