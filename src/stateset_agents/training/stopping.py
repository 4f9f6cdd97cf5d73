"""When to stop before the planned end.

Invariant: counts are in evaluations and steps, both saved, so that a resumed run stops where an undisturbed one does.
A run that learned all there is, or no longer gets better, ends with a reason; one that cannot learn raises.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.training import TrainingConfig
from ..core.errors import ConfigError, TrainingStopped
from ..core.outcome import Outcome
from ..core.reward import GroupReward, RewardFunction
from ..core.trajectory import TrajectoryGroup

FLAT_STEPS_WARN = 3
FLAT_STEPS_STOP = 10

log = logging.getLogger(__name__)


class EarlyStopping:
    """Stops when evaluations no longer improve.

    Args:
        patience: evaluations without a new best after which `should_stop` is true; None never stops.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best = -math.inf
        self.best_step = 0
        self.without_improvement = 0

    def update(self, step: int, score: float) -> bool:
        """Take note of an evaluation. Returns whether it is the best so far."""
        if score > self.best:
            self.best, self.best_step, self.without_improvement = score, step, 0
            return True
        self.without_improvement += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.without_improvement >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Best score and counts; a best that does not exist yet is null."""
        best = None if self.best == -math.inf else self.best
        return {"best": best, "best_step": self.best_step, "without_improvement": self.without_improvement}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.best_step = int(state["best_step"])
        self.without_improvement = int(state["without_improvement"])


class FlatSteps:
    """Counts steps in a row in which no group had anything to learn from.

    Attributes:
        count: of them.
        rewards: mean reward of each that had one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.rewards: list[float] = []

    def update(self, updated: bool, reward: float | None = None) -> None:
        """Take note of a step."""
        if updated:
            self.renew()
            return
        self.count += 1
        if reward is not None:
            self.rewards.append(reward)

    def renew(self) -> None:
        """Count anew."""
        self.count = 0
        self.rewards.clear()

    @property
    def should_warn(self) -> bool:
        """Once, when it begins to look wrong."""
        return self.count == FLAT_STEPS_WARN

    @property
    def should_stop(self) -> bool:
        """When going on is a waste of time."""
        return self.count >= FLAT_STEPS_STOP


class Judge:
    """Whether a run should go on after a step.

    Args:
        patience: see `EarlyStopping`.
        solved: mean reward from which on groups without differences are success; None if nobody knows it.
    """

    def __init__(self, patience: int | None, *, solved: float | None) -> None:
        self.early = EarlyStopping(patience)
        self.flat = FlatSteps()
        self._solved = solved

    def after(self, row: Mapping[str, Any]) -> str | None:
        """Look at the row of a step.

        Returns:
            Why the run is over, as the end of "The run ..."; None to go on.

        Raises:
            TrainingStopped: nothing was learned for `FLAT_STEPS_STOP` steps.
        """
        reason = None
        score = row.get("eval_reward_mean")
        if score is not None:
            self.early.update(row["step"], score)
            if self.early.should_stop:
                reason = (
                    f"stopped early: {self.early.without_improvement} evaluations without improvement; "
                    f"best {self.early.best:.3f} at step {self.early.best_step}"
                )
        if "updated" not in row:
            return reason  # nothing is trained
        self.flat.update(row["updated"], row.get("reward_mean"))
        if self.flat.should_warn:
            log.warning(
                "%d steps in a row had no group with different rewards: nothing was learned from them", self.flat.count
            )
        if not self.flat.should_stop:
            return reason
        reward = statistics.fmean(self.flat.rewards) if self.flat.rewards else None
        if reward is not None and self._solved is not None and reward >= self._solved:
            return "stopped early: every conversation gets (nearly) the attainable reward"
        raise TrainingStopped(_nothing_to_learn(self.flat.count, reward))

    def renew(self) -> None:
        """Count anew: something was changed so that the run may get better."""
        self.flat.renew()
        self.early.without_improvement = 0

    def state_dict(self) -> dict[str, Any]:
        """All counts."""
        return {"early": self.early.state_dict(), "flat_steps": self.flat.count, "flat_rewards": [*self.flat.rewards]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.early.load_state_dict(state["early"])
        self.flat.count = int(state["flat_steps"])
        self.flat.rewards = [float(reward) for reward in state.get("flat_rewards", ())]


def require_a_mean_to_watch(config: TrainingConfig, reward: RewardFunction) -> None:
    """Refuse early stopping where the mean reward says nothing.

    Raises:
        ConfigError: the reward compares conversations with each other.
    """
    if config.early_stopping and isinstance(reward, GroupReward):
        raise ConfigError(
            f"early_stopping watches the mean reward, but {reward.label} compares conversations with each other: "
            "its mean stays where it is; set early_stopping to false"
        )


def require_something_to_learn(groups: Sequence[TrajectoryGroup], *, trains: bool) -> None:
    """Look at the first step: where nothing in it can be learned from, the second one would not fare better.

    Args:
        groups: of that step.
        trains: whether there are weights to train.

    Raises:
        TrainingStopped: no conversation was scored, with the first error; or no reply can be trained.
    """
    played = [episode for group in groups for episode in group.trajectories]
    if not played:
        raise TrainingStopped(f"no conversation of the first step could be scored.\n  {_first_failure(groups)}")
    if trains and not any(episode.trained_tokens for episode in played):
        raise TrainingStopped(
            "nothing can be trained: no reply of the first step reached its conversation as the model sampled it.\n"
            "  the agent's process_turn returns a text of its own; let it return the turn of super().process_turn() "
            "with its content as it is"
        )


_CULPRITS = {
    Outcome.AGENT: "the agent's process_turn",
    Outcome.USER: "the simulated user",
    Outcome.ENVIRONMENT: "the environment",
    Outcome.REWARD: "the reward",
}


def _first_failure(groups: Sequence[TrajectoryGroup]) -> str:
    """Who failed in how many conversations, and the first error."""
    episodes = [episode for group in groups for episode in group.failures]
    first = episodes[0]
    if first.outcome.scored:
        reason = first.metadata.get("reward", {}).get("unscored", "it gave no score")
        return f"the reward has nothing to judge them by: {reason}"
    alike = sum(episode.outcome is first.outcome for episode in episodes)
    return f"{alike} of {len(episodes)} failed in {_CULPRITS[first.outcome]}: {first.error}"


def _nothing_to_learn(steps: int, reward: float | None) -> str:
    start = f"{steps} steps in a row had nothing to learn from:"
    if reward is None:
        return f"{start} no conversation could be scored.\n  trajectories.jsonl has the error of each one"
    return (
        f"{start} all conversations of each group got the same reward (mean {reward:.3f}).\n"
        "  raise the temperature or num_generations, refine the reward, or begin with easier scenarios"
    )
