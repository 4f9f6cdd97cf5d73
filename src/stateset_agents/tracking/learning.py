"""Is it learning? One verdict, and how sure it is.

Invariant: a pure function of what each step measured. The first third of the steps is compared with the last third; a
step is one piece of evidence, as its conversations are about other scenarios than those of the step before. "Yes" and
"getting worse" are said only where the 95 % interval of the difference (Welch's t) leaves out 0: a run that learns
nothing is called one or the other once in twenty times. What cannot be judged is "not seen", and the sentence says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verdict = Literal["yes", "not seen", "getting worse"]
Numbers: TypeAlias = "Sequence[float] | NDArray[np.floating[Any]]"

FEWEST_STEPS = 12
"""Four in each third: with fewer, the interval is as wide as the rewards go."""
_Z = 1.959964


@dataclass(frozen=True)
class Difference:
    """Mean of one window less that of another, and the interval of what it could be.

    Attributes:
        before, after: means of the windows.
        low, high: ends of the 95 % interval of `after - before`.
    """

    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    def text(self) -> str:
        """For example `by 0.120 (95 % interval 0.050 to 0.190)`."""
        low, high = sorted((abs(self.low), abs(self.high))) if self.low * self.high > 0 else (self.low, self.high)
        return f"by {abs(self.change):.3f} (95 % interval {low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Learning:
    """What can be said.

    Attributes:
        verdict: "yes", "not seen" or "getting worse".
        sentence: the same with numbers, for people.
        measure: what was compared: "reward", or "loss" where a run learns from a file and has no rewards.
        window: steps in each third; 0 if there are too few.
        difference: of the thirds; None if there are too few steps.
        notes: what else is to be known, one sentence each.
    """

    verdict: Verdict
    sentence: str
    measure: str
    window: int = 0
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def judge(rewards: Numbers, losses: Numbers = (), heldout: Sequence[tuple[float, float, float]] = ()) -> Learning:
    """Say whether a run learns.

    Args:
        rewards: mean reward of each step, in order; NaN where nothing was scored.
        losses: of each step; judged in place of rewards where there is no reward at all.
        heldout: mean reward and its interval, low and high, of each evaluation, in order.
    """
    values, measure = _finite(rewards), "reward"
    if not len(values) and len(_finite(losses)):
        values, measure = -_finite(losses), "loss"
    notes = tuple(_heldout_notes(heldout))
    if len(values) < FEWEST_STEPS:
        what = f"{len(values)} of at least {FEWEST_STEPS} steps have a {measure}"
        return Learning("not seen", f"Too early to tell: {what}.", measure, notes=notes)
    window = len(values) // 3
    first, middle, last = values[:window], values[window:-window], values[-window:]
    change = difference(first, last)
    verdict: Verdict = "yes" if change.low > 0 else "getting worse" if change.high < 0 else "not seen"
    lost = difference(middle, last)
    if lost.high < 0 and lost.before > change.before and verdict != "getting worse":
        notes = (
            f"It was better before: the {measure} {_went(measure, lost)} {lost.text()} since the middle of the run.",
            *notes,
        )
    return Learning(verdict, _sentence(verdict, measure, window, change), measure, window, change, notes)


def difference(before: Numbers, after: Numbers) -> Difference:
    """Welch's interval for the difference of two means.

    Raises:
        ValueError: a window with fewer than two values.
    """
    import numpy as np  # here, as a command that only shows its help needs none

    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if min(len(first), len(second)) < 2:
        raise ValueError("a window needs two steps to say how much steps differ")
    shares = [float(one.var(ddof=1)) / len(one) for one in (first, second)]
    change, error = float(second.mean() - first.mean()), math.sqrt(sum(shares))
    if error == 0.0:
        return Difference(float(first.mean()), float(second.mean()), change, change)
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(one) - 1) for share, one in zip(shares, (first, second), strict=True)
    )
    half = t_quantile(freedom) * error
    return Difference(float(first.mean()), float(second.mean()), change - half, change + half)


def t_quantile(freedom: float) -> float:
    """97.5 % quantile of Student's t, by the expansion in 1/freedom (Abramowitz and Stegun 26.7.5).

    Within 0.2 % from 3 degrees of freedom on.
    """
    z, v = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _sentence(verdict: Verdict, measure: str, window: int, change: Difference) -> str:
    sign = -1.0 if measure == "loss" else 1.0
    where = (
        f"from {sign * change.before:.3f} in the first {window} steps to {sign * change.after:.3f} in the last {window}"
    )
    match verdict:
        case "yes":
            return f"Yes: the {measure} {_went(measure, change)} {change.text()}, {where}."
        case "getting worse":
            return f"Getting worse: the {measure} {_went(measure, change)} {change.text()}, {where}."
        case _:
            low, high = sorted((sign * change.low, sign * change.high))
            return (
                f"Not seen: the {measure} went {where}, and chance alone moves it as far "
                f"(95 % interval of the change {low:+.3f} to {high:+.3f})."
            )


def _went(measure: str, change: Difference) -> str:
    return "rose" if (change.change > 0) == (measure == "reward") else "fell"


def _heldout_notes(heldout: Sequence[tuple[float, float, float]]) -> list[str]:
    if len(heldout) < 2:
        return []
    (first, first_low, first_high), (last, last_low, last_high) = heldout[0], heldout[-1]
    went = f"the evaluated reward went from {first:.3f} to {last:.3f}"
    if last_high < first_low:
        return [f"On the evaluation's scenarios it got worse: {went}, and the intervals are apart."]
    if last_low > first_high:
        return [f"It holds in the evaluations: {went}, and the intervals are apart."]
    return [f"In the evaluations no difference is seen: {went}, and the intervals overlap."]


def _finite(values: Numbers) -> NDArray[np.float64]:
    import numpy as np

    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]
