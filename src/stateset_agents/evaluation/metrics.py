"""What the metrics of episodes mean, defined once for training, evaluation and reports.

Invariant: an episode that failed enters no mean; it is counted. Every mean says over what it is taken.

Reward diversity is the population standard deviation of the rewards inside a group, averaged over groups: what a
group-relative advantage is made of. A group without any teaches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..core.outcome import Outcome, StopReason
from ..core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from ..rollouts import RolloutCounts, with_baseline
from .statistics import mean_and_std, mean_of

SAME_REWARD = 1e-9
NGRAM = 4
"""Words or tokens in a row that a reply repeats: fewer are said again in any prose."""
_PER_TURN = re.compile(r"turn_\d+")


@dataclass(frozen=True)
class SuccessCriterion:
    """The environment's own criterion where it states one, else at least half of the attainable reward.

    Attributes:
        attainable: the highest reward that an episode can get; None if nobody knows it.
    """

    attainable: float | None = None

    def succeeded(self, episode: MultiTurnTrajectory) -> bool | None:
        """Whether a scored episode succeeded, or None if nothing says what success is."""
        if episode.success is not None:
            return episode.success
        if self.attainable is None or episode.reward is None:
            return None
        return episode.reward >= self.attainable / 2

    def text(self, episodes: Iterable[MultiTurnTrajectory]) -> str:
        """Which criterion judged these episodes, in words."""
        return self.describe({episode.success is not None for episode in episodes})

    def describe(self, stated: Collection[bool]) -> str:
        """Like `text`, for a collection of whether the environment stated a criterion."""
        if set(stated) == {True}:
            return "the environment's criterion"
        if self.attainable is None:
            return (
                "the environment's criterion, where it states one" if True in stated else "nothing states a criterion"
            )
        half = f"reward of at least {self.attainable / 2:.3g}, half of the attainable {self.attainable:.3g}"
        return f"the environment's criterion, elsewhere a {half}" if True in stated else f"a {half}"


def group_metrics(groups: Sequence[TrajectoryGroup], criterion: SuccessCriterion) -> dict[str, float | None]:
    """The reward part of one step's row in `metrics.jsonl`.

    Returns:
        `reward_mean`, `reward_std`, `reward_min`, `reward_max`, `success_rate`, `length_mean` (assistant turns) over
        all scored episodes; `reward_diversity` and `zero_variance_share` over the groups that have a baseline; the
        counts `step_episodes`, `failed` (and who did: `failed_agent`, `failed_user`, `failed_environment`,
        `failed_reward`), `unscored`, `truncated`, `edited_turns`, `replies` and `cut_replies` (by `max_new_tokens`);
        `repeated_ngrams` over the replies of at least `NGRAM` tokens.
        None where there is nothing to take a mean of.
    """
    episodes = [episode for group in groups for episode in group.trajectories]
    counts = RolloutCounts.of(groups)
    rewards = [reward for group in groups for reward in group.rewards]
    reward_mean, reward_std = mean_and_std(rewards) if rewards else (None, None)
    diversities = [group.reward_diversity for group in with_baseline(groups)]
    replies = [turn for episode in episodes for turn in episode.turns if turn.role == "assistant"]
    successes = [success for success in map(criterion.succeeded, episodes) if success is not None]
    return {
        "reward_mean": reward_mean,
        "reward_std": reward_std,
        "reward_min": min(rewards, default=None),
        "reward_max": max(rewards, default=None),
        "reward_diversity": mean_of(diversities),
        "zero_variance_share": mean_of([float(diversity < SAME_REWARD) for diversity in diversities]),
        "success_rate": mean_of([float(success) for success in successes]),
        "length_mean": mean_of([float(episode.length) for episode in episodes]),
        "step_episodes": counts.episodes,
        "failed": counts.failed,
        **{f"failed_{outcome.value}": counts.failures.get(outcome, 0) for outcome in Outcome if not outcome.scored},
        "unscored": counts.unscored,
        "truncated": counts.truncated,
        "edited_turns": counts.edited_turns,
        "replies": len(replies),
        "cut_replies": sum(turn.stop_reason is StopReason.LENGTH for turn in replies),
        "repeated_ngrams": mean_of([share for share in map(repeated_share, replies) if share is not None]),
    }


def repeated_share(reply: ConversationTurn) -> float | None:
    """Share of a reply's 4-grams that stood in it before; of its tokens where it was sampled, else of its words.

    None for a reply that is too short to have one.
    """
    words: Sequence[object] = reply.content.split() if reply.span is None else reply.span.ids
    grams = [tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def part_means(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """The parts of the reward in one step's row in `metrics.jsonl`: under `reward/<part>` its mean, unweighted.

    Over the scored episodes that have the part. What a reward says about single turns is left out.
    """
    return {f"reward/{name}": sum(values) / len(values) for name, values in parts(groups).items()}


def parts(groups: Iterable[TrajectoryGroup]) -> dict[str, list[float]]:
    """The values of each part of the reward, of all scored episodes that have it; parts for single turns left out."""
    values: dict[str, list[float]] = {}
    for group in groups:
        for episode in group.trajectories:
            for name, value in episode.breakdown.items():
                if not _PER_TURN.fullmatch(name):
                    values.setdefault(name, []).append(float(value))
    return values
