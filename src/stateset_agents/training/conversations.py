"""Scored conversations as the learner sees them: which tokens are trained, of which turn, and what was earned.

Invariant: every trained token belongs to one turn of the agent, a reply with the calls of tools that led to it, and
what the turns earned adds up to the reward.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..config.training import TrainingConfig
from ..core.outcome import StopReason
from ..core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup


@dataclass(frozen=True)
class Conversation:
    """One scored conversation as the learner sees it.

    Attributes:
        trajectory: it.
        group: index of its group.
        rows: its training rows.
        turns: for each row, the turn (`MultiTurnTrajectory.moves`) of each of its trained tokens.
        reward: what it earned, penalties included.
    """

    trajectory: MultiTurnTrajectory
    group: int
    rows: list[TokenRow]
    turns: list[list[int]]
    reward: float

    @property
    def tokens(self) -> int:
        """Trained tokens over all rows."""
        return sum(map(len, self.turns))

    @property
    def turn_lengths(self) -> list[int]:
        """Trained tokens of each turn, up to the last that has any; empty if none is trained."""
        counts = Counter(turn for row in self.turns for turn in row)
        return [counts[turn] for turn in range(max(counts, default=-1) + 1)]

    def earned(self) -> dict[int, float]:
        """What each turn that has trained tokens earned; together the reward.

        What an untrained turn earned counts for the one before it, or the first. Empty if no token is trained.
        """
        trained = sorted({turn for row in self.turns for turn in row})
        if not trained:
            return {}
        given = self.trajectory.move_rewards
        earned = dict.fromkeys(trained, 0.0)
        for turn, reward in enumerate(given):
            earned[max((t for t in trained if t <= turn), default=trained[0])] += reward
        earned[trained[-1]] += self.reward - math.fsum(given)  # what was judged at the end, and penalties
        return earned

    def returns(self, discount: float) -> list[float]:
        """What was earned from each turn on, discounted by turns; 0 where a turn has no trained tokens."""
        earned = self.earned()
        found = [0.0] * (max(earned, default=-1) + 1)
        ahead = 0.0
        for turn in reversed(earned):
            found[turn] = ahead = earned[turn] + discount * ahead
        return found


def conversations_of(
    groups: Sequence[TrajectoryGroup], config: TrainingConfig, max_new_tokens: int = 0
) -> list[Conversation]:
    """The conversations of a step that can be learned from, in order.

    Args:
        groups: scored; those with fewer conversations than the algorithm's baseline needs are left out.
        config: algorithm settings.
        max_new_tokens: length limit of a reply, which `overlong_share` refers to; 0: unknown, no penalty.
    """
    least = 1 if config.recipe.baseline in ("batch", "value", "none") else 2
    found = []
    for index, group in enumerate(group for group in groups if len(group.trajectories) >= least):
        for trajectory in group.trajectories:
            rows, turns = [], []
            for row, which in _rows_with_turns(trajectory, mask_truncated=config.mask_truncated):
                if which:
                    rows.append(row)
                    turns.append(which)
            reward = (trajectory.reward or 0.0) - overlong_cost(trajectory, config, max_new_tokens)
            found.append(Conversation(trajectory, index, rows, turns, reward))
    return found


def overlong_cost(trajectory: MultiTurnTrajectory, config: TrainingConfig, max_new_tokens: int) -> float:
    """What the longest reply costs: 0 up to a share of the limit, then rising to `overlong_penalty` at the limit.

    The soft overlong punishment of DAPO (2503.14476), by reply.
    """
    buffer = config.overlong_share * max_new_tokens
    if not buffer:
        return 0.0
    longest = max((len(turn.span.ids) for turn in trajectory.assistant_turns if turn.span is not None), default=0)
    over = longest - (max_new_tokens - buffer)
    return config.overlong_penalty * min(1.0, max(0.0, over / buffer))


def _rows_with_turns(trajectory: MultiTurnTrajectory, *, mask_truncated: bool) -> Iterator[tuple[TokenRow, list[int]]]:
    """Each row, as it is trained, with the move of each trained token: the reply, and the calls that led to it.

    Rows that no turn points into (made by hand) have one turn for each run of trained tokens.
    """
    known: dict[tuple[int, int], int] = {}
    cut: set[tuple[int, int]] = set()
    for number, turn in zip(trajectory.moves, trajectory.assistant_turns, strict=True):
        if turn.span is None:
            continue
        places = {(id(turn.span.row), place) for place in range(turn.span.start, turn.span.end)}
        known |= dict.fromkeys(places, number)
        if turn.stop_reason in (StopReason.LENGTH, StopReason.CONTEXT):
            cut |= places
    runs = -1
    for row in trajectory.rows:
        mask, which = list(row.mask), []
        for place, trained in enumerate(row.mask):
            if not trained:
                continue
            if known:
                turn_number = known.get((id(row), place), trajectory.moves[-1])
            else:
                runs += place == 0 or not row.mask[place - 1]
                turn_number = runs
            if mask_truncated and (id(row), place) in cut:
                mask[place] = 0
            else:
                which.append(turn_number)
        yield (row if mask == row.mask else TokenRow(row.ids, mask, row.logprobs, row.versions)), which
