"""The conversations of one round, in the form that TRL trains on.

Invariant: as many rows go back as prompts came, in their order. A row is what the engine sampled, token for token: its
`env_mask` is 1 exactly where the model spoke, in an episode that was scored; user turns, edited turns and everything in
an episode that failed are 0. The weights that speak are those of the step at which TRL asked.

TRL trains one row for each prompt. Where history was rewritten (a memory window, an edited reply, a chat template that
drops earlier thoughts) an episode has several: the one with the most trained tokens goes back, the others are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup


@dataclass
class TRLBatch:
    """Rows for TRL, one for each episode, in parallel lists.

    Attributes:
        prompt_ids: every token before the first that is trained; at least one.
        completion_ids: the rest, up to the last that is trained; at least one.
        logprobs: natural-log probability of each completion token when it was sampled; 0.0 where it was not.
        env_mask: 1 where a completion token is trained.
        rewards: of the episode; None if it was not scored.
        dropped_rows: rows that TRL cannot train beside the one that goes back.
    """

    prompt_ids: list[list[int]] = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)
    env_mask: list[list[int]] = field(default_factory=list)
    rewards: list[float | None] = field(default_factory=list)
    dropped_rows: int = 0

    @classmethod
    def of(cls, groups: Sequence[TrajectoryGroup], filler: int) -> TRLBatch:
        """The rows of whole groups.

        Args:
            groups: scored episodes and failures of each; they go back in the order in which they were numbered.
            filler: token that stands for an episode in which the model said nothing; it is not trained.
        """
        batch = cls()
        for group in groups:
            for episode in sorted([*group.trajectories, *group.failures], key=_number):
                batch._append(episode, filler)
        return batch

    def to_dict(self) -> dict[str, Any]:
        """What a rollout function returns; `episode_reward` is handed on to the reward."""
        return {
            "prompt_ids": self.prompt_ids,
            "completion_ids": self.completion_ids,
            "logprobs": self.logprobs,
            "env_mask": self.env_mask,
            "episode_reward": self.rewards,
        }

    def _append(self, episode: MultiTurnTrajectory, filler: int) -> None:
        scored = episode.outcome.scored and episode.reward is not None
        row = max(episode.rows, key=lambda row: row.trained_tokens, default=None)
        self.dropped_rows += max(0, len(episode.rows) - 1)
        start, end = (0, 0) if row is None else _trained_range(row)
        self.rewards.append(episode.reward if scored else None)
        if row is None or start == 0:
            self.prompt_ids.append([filler])
            self.completion_ids.append([filler])
            self.logprobs.append([0.0])
            self.env_mask.append([0])
            return
        self.prompt_ids.append(row.ids[:start])
        self.completion_ids.append(row.ids[start:end])
        self.logprobs.append(row.logprobs[start:end])
        self.env_mask.append(row.mask[start:end] if scored else [0] * (end - start))


def _trained_range(row: TokenRow) -> tuple[int, int]:
    """From the first trained token to behind the last one."""
    start = row.mask.index(1)
    return start, len(row) - row.mask[::-1].index(1)


def _number(episode: MultiTurnTrajectory) -> int:
    """The sample's number, with which its key ends."""
    return int(episode.key.rpartition("/")[2])
