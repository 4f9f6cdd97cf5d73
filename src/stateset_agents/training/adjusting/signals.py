"""What is wrong with a run, as far as a setting can be moved against it: functions of the rows of `metrics.jsonl`.

Invariant: pure. Each gives the reason in words, or None. While the mean reward rises, or is near its maximum, low
entropy and equal groups are no signal: learning itself makes them so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...tracking.health import NEAR_MAXIMUM, NORM_FACTOR
from ...tracking.health.of_rewards import SAME_REWARD_SHARE
from ...tracking.health.of_updates import ENTROPY_LEFT, KL_FAR, STABLE_SHARE
from ...tracking.learning import difference

Rows = Sequence[Mapping[str, Any]]

FELL = 0.05
"""Share of the attainable reward by which it must have fallen, or risen, to count."""
RISE = 6
"""Steps that are compared with as many before them, to see whether the reward rises."""
OFF_RATIO = 0.1
"""Distance of the mean importance ratio from 1: half of the usual clip range, as a mean over all tokens."""
NEARLY_ALL = 0.9
"""Share of groups with equal rewards from which on a step teaches next to nothing."""
BEGINNING = 5
"""Rows whose mean is what a run began with."""


@dataclass(frozen=True)
class View:
    """What a signal is judged by.

    Attributes:
        rows: of the run so far.
        since: of them, those since the last move.
        window: how many of the last ones are looked at; `since` has at least as many.
        attainable: the highest reward that an episode can get, if known.
    """

    rows: Rows
    since: Rows
    window: int
    attainable: float | None

    @property
    def recent(self) -> Rows:
        """The rows of the window."""
        return self.since[-self.window :]

    @property
    def scale(self) -> float:
        """Of rewards."""
        return self.attainable if self.attainable is not None and self.attainable > 0 else 1.0

    @property
    def fine(self) -> bool:
        """Whether the reward is near its maximum, or rises."""
        means = numbers(self.rows, "reward_mean")
        if not means:
            return False
        last = statistics.mean(means[-self.window :])
        if self.attainable is not None and last >= NEAR_MAXIMUM * self.attainable:
            return True
        size = min(RISE, len(means) // 2)
        before, after = means[-2 * size : -size], means[-size:]
        return size > 0 and statistics.mean(after) > statistics.mean(before) + FELL * self.scale

    def mean(self, key: str) -> float | None:
        """Over the rows of the window that measured it."""
        values = numbers(self.recent, key)
        return statistics.mean(values) if values else None


Signal = Callable[[View], str | None]
"""The reason to act, or None."""


def numbers(rows: Rows, key: str) -> list[float]:
    """What was measured, in order."""
    return [float(row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])]


def shortened(view: View) -> str | None:
    """Update after update was cut, because it would have changed too much at once."""
    share = largest_share(view.recent)
    if share is None or share >= 1:
        return None
    steps = f"the updates of the last {view.window} steps"
    return f"{steps} would have changed the policy too much at once, and at most {share:.3g} of one was made"


def largest_share(rows: Rows) -> float | None:
    """Of an update that was made in one of some steps; None where there was not one in each."""
    shares = numbers(rows, "step_share")
    return max(shares) if len(shares) == len(rows) else None


def ratio_off(view: View) -> str | None:
    """Within a step the policy drifts away from the one that sampled."""
    ratio = view.mean("ratio_mean")
    if ratio is None or abs(ratio - 1) <= OFF_RATIO:
        return None
    return f"the importance ratios of the last {view.window} steps are {ratio:.2f} on average, far from 1"


def far_from_reference(view: View) -> str | None:
    """The policy left its reference, and the reward does not grow by it."""
    kl = view.mean("kl")
    if kl is None or kl <= KL_FAR or view.fine:
        return None
    return f"the KL from the reference is {kl:.2f} a token, and the reward does not rise"


def restless(view: View) -> str | None:
    """Gradient norms jump, and the reward does not grow."""
    norms = [norm for norm in numbers(view.recent, "grad_norm") if norm]
    if len(norms) < view.window / 2 or view.fine:
        return None
    median = statistics.median(norms)
    close = sum(median / NORM_FACTOR <= norm <= median * NORM_FACTOR for norm in norms) / len(norms)
    if close >= STABLE_SHARE:
        return None
    factor = f"a factor {NORM_FACTOR:.0f} of their median"
    return f"{1 - close:.0%} of the last {len(norms)} gradient norms lie beyond {factor}"


def fell(view: View) -> str | None:
    """The mean reward is clearly below what it was at its best since the last move."""
    size, means = view.window, numbers(view.since, "reward_mean")
    if len(means) < 2 * size:
        return None
    best = max((means[at : at + size] for at in range(len(means) - 2 * size + 1)), key=statistics.mean)
    change = difference(best, means[-size:])
    spread = view.mean("reward_std") or 0.0  # the best of many windows is partly luck
    if change.high >= 0 or -change.change <= max(spread / 2, FELL * view.scale):
        return None
    return f"the mean reward of the last {size} steps is {change.after:.3f}, and it was {change.before:.3f} before"


def collapsed(view: View) -> str | None:
    """The policy says nearly the same every time, and the reward does not grow."""
    measured = numbers(view.rows, "entropy")
    if not measured or view.fine:
        return None
    now = view.mean("entropy")
    now = measured[-1] if now is None else now  # groups that are all equal have no update, and measure none
    first = statistics.mean(measured[:BEGINNING])
    if now >= ENTROPY_LEFT * first:
        return None
    return f"the entropy fell to {now:.2g} from {first:.2g} at first, and the reward does not rise"


def many_equal_groups(view: View) -> str | None:
    """Most groups have nothing to learn from."""
    return _equal(view, SAME_REWARD_SHARE)


def equal_groups(view: View) -> str | None:
    """Nearly all groups have nothing to learn from."""
    return _equal(view, NEARLY_ALL)


def _equal(view: View, most: float) -> str | None:
    share = view.mean("zero_variance_share")
    if share is None or share <= most or view.fine:
        return None
    return f"{share:.0%} of the groups of the last {view.window} steps had equal rewards"
