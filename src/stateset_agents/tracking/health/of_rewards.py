"""Signs in the rewards: whether they differ, where they go, and whether an evaluation agrees.

Invariant: that a reward rose or fell is said by the one comparison of `tracking/learning.py`, never by two numbers. Of
evaluations more is asked, as each is a look of its own at the same question: of runs that stay as they are and are
judged after each of 20 evaluations, fewer than one in a hundred is said to fall.
"""

from __future__ import annotations

from collections.abc import Sequence

from .evidence import NEAR_MAXIMUM, Evidence
from .signal import HealthStatus, Look, Signal

GOOD_DIVERSITY = 0.05
"""Share of the attainable reward by which the samples of a group should differ (standard deviation)."""
SAME_REWARD_SHARE = 0.5
"""Share of groups that may have equal rewards: with more, most of what is sampled is thrown away."""

APART = 2.3
"""Half intervals of a difference that two parts of the evaluations must be apart; 1 would be the usual 95 %."""


def diversity(evidence: Evidence) -> Look | None:
    """Spread of the rewards inside groups."""
    value = evidence.mean("reward_diversity")
    if value is None:
        return None
    low = value < GOOD_DIVERSITY * evidence.scale and not evidence.solved
    return Look(value, f"{value:.3f}", "Low reward diversity" if low else None)


def equal_rewards(evidence: Evidence) -> Look | None:
    """Groups without any spread."""
    value = evidence.mean("zero_variance_share")
    if value is None:
        return None
    wrong = f"{value:.0%} of the groups had equal rewards and taught nothing"
    return Look(value, f"{value:.0%}", wrong if value > SAME_REWARD_SHARE and not evidence.solved else None)


def reward(evidence: Evidence) -> Look | None:
    """Where the reward (or the loss of a run that reads) goes."""
    learning = evidence.learning
    change = learning.difference
    if change is None:
        return None
    sign = -1.0 if learning.measure == "loss" else 1.0
    before, after = sign * change.before, sign * change.after
    went = "rose" if learning.measure == "loss" else "fell"
    worse = (
        f"The {learning.measure} {went} from {before:.3f} in the first {learning.window} steps to {after:.3f} in the "
        f"last {learning.window}"
    )
    return Look(
        sign * change.change,
        ("loss " if learning.measure == "loss" else "") + f"{before:.3f} to {after:.3f}",
        worse if learning.verdict == "getting worse" else None,
    )


def evaluation(evidence: Evidence) -> Look | None:
    """The evaluations against the best of them, and against the reward that is trained for."""
    evaluated = evidence.evaluations
    if len(evaluated) < 2:
        return None
    step, best, _, _ = max(evaluated, key=lambda one: one[1])
    last = evaluated[-1][1]
    shown = f"{evaluated[0][1]:.3f} to {last:.3f}"
    change = evidence.trend([mean for _, mean, _, _ in evaluated])
    down = change is not None and change.change + APART * (change.high - change.change) < 0
    if not (last < best and (down or _below_the_best(evaluated))):
        return Look(last, shown)
    words = f"evaluated reward fell from {best:.3f} after step {step} to {last:.3f}"
    if evidence.learning.verdict != "yes" or evidence.learning.measure != "reward":
        return Look(last, shown, f"The {words}")
    return Look(
        last,
        shown,
        f"The reward that is trained for rose while the {words}, so it is earned in a way that was not meant",
        HealthStatus.CRITICAL,
        f"read the conversations with the highest rewards and mend the reward, or raise beta; the checkpoint of step "
        f"{step} is the better agent",
    )


def _below_the_best(evaluated: Sequence[tuple[int, float, float, float]]) -> bool:
    """Whether the last ones, however many, are further below what was before them than chance would put them.

    They are compared with the best single one before them and with the best as many in a row. A score near its limit
    has an interval that is too narrow, so the half interval of all together stands for each, or that of the best one
    where it is wider.
    """
    import numpy as np  # here, as a command that only shows its help needs none

    _, means, lows, highs = np.array(evaluated, np.float64).T
    halves, count = (highs - lows) / 2, len(means)
    typical = float(np.sqrt((halves**2).mean()))
    if means[-1] + typical >= means.max():
        return False
    sums = np.concatenate(([0.0], means.cumsum()))
    for last in range(1, count):
        before, now = count - last, (sums[-1] - sums[-1 - last]) / last
        best = int(means[:before].argmax())
        half = max(typical, float(halves[best]))
        if means[best] - now > APART * half * (1 + 1 / last) ** 0.5:
            return True
        if last <= before:
            in_a_row = (sums[last : before + 1] - sums[: before + 1 - last]).max() / last
            if in_a_row - now > APART * half * (2 / last) ** 0.5:
                return True
    return False


SIGNALS = (
    Signal(
        "Reward diversity",
        ("reward_diversity",),
        f"below {GOOD_DIVERSITY:.0%} of the attainable reward (of 1 where that is unknown), while the reward is below "
        f"{NEAR_MAXIMUM:.0%} of it",
        "How far the rewards inside a group differ: what a group-relative advantage is made of.",
        "raise the temperature or num_generations, or refine the reward",
        HealthStatus.WARNING,
        diversity,
    ),
    Signal(
        "Groups with equal rewards",
        ("zero_variance_share",),
        f"more than {SAME_REWARD_SHARE:.0%}, while the reward is below {NEAR_MAXIMUM:.0%} of the attainable one",
        "Groups whose rewards are all equal have no advantage and teach nothing.",
        "raise num_generations, take easier or harder scenarios, or set dynamic_sampling",
        HealthStatus.WARNING,
        equal_rewards,
    ),
    Signal(
        "Trend of the reward",
        ("reward_mean", "loss"),
        "the last third of the steps is below the first, and the 95 % interval of the difference leaves out 0",
        "Whether the run gets better: the comparison behind the dashboard's verdict.",
        "lower the learning rate or raise beta",
        HealthStatus.WARNING,
        reward,
    ),
    Signal(
        "Evaluation",
        ("eval_reward_mean", "eval_reward_low", "eval_reward_high"),
        "the last evaluations, one or more, are below the best one before them, or the best as many in a row, by more "
        f"than {APART} half intervals of the difference, and the very last is a half interval below the best; or the "
        f"last third of at least 12 is below the first by {APART} half intervals; CRITICAL where the reward that is "
        "trained for rose meanwhile",
        "What the agent earns where it is not trained; a reward that rises while this falls is being exploited.",
        "stop at the best evaluation (early_stopping), lower the learning rate, or give it more scenarios",
        HealthStatus.WARNING,
        evaluation,
    ),
)
