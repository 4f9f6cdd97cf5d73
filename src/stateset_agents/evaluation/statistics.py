"""Means, shares and differences, each with how far it can be trusted.

Invariant: the scenario is the unit of evidence. Every scenario weighs the same, however many of its episodes could be
scored, and an interval says how the number would move with other scenarios of the same kind; more samples of the same
scenarios never make it arbitrarily narrow. The same data gives the same interval, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config.training import count

LEVEL = 0.95
RESAMPLES = 2000
SCENARIOS_FOR_A_VERDICT = 6
ROUNDING = 1e-9

Verdict = Literal["better", "no difference seen", "worse", "too few scenarios to tell"]
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A mean over scenarios and its 95 % interval.

    Attributes:
        mean: mean of the scenarios' means.
        low: lower end, None if one value is all there is.
        high: upper end, None likewise.
        scenarios: how many there are.
        episodes: how many values they have together.
    """

    mean: float
    low: float | None
    high: float | None
    scenarios: int
    episodes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def text(self, form: str = ".3f") -> str:
        """For example `0.612 (95 % interval 0.540 to 0.683)`."""
        if self.low is None or self.high is None:
            return f"{self.mean:{form}} (one episode, no interval)"
        over = f" over {count(self.episodes, 'episode')} of one scenario" if self.scenarios == 1 else ""
        return f"{self.mean:{form}} (95 % interval {self.low:{form}} to {self.high:{form}}{over})"


@dataclass(frozen=True)
class PairedDifference:
    """After minus before, on the scenarios that both have.

    Attributes:
        mean: mean over scenarios of the difference of the scenario's means.
        low: lower end of the 95 % interval, None if there are not two values to compare.
        high: upper end, None likewise.
        scenarios: how many both have.
        verdict: "better" or "worse" if the interval leaves out 0. "too few scenarios to tell" below 6 of them: then
            not even the same sign everywhere would be unlikely (2 / 2^5 = 6 %) were there no difference.
    """

    mean: float
    low: float | None
    high: float | None
    scenarios: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def text(self, form: str = "+.3f") -> str:
        """For example `+0.310 (95 % interval +0.220 to +0.401): better`."""
        if self.low is None or self.high is None:
            return f"{self.mean:{form}} (one scenario, no interval): {self.verdict}"
        few = f", from {self.scenarios} scenarios only" if self.scenarios < SCENARIOS_FOR_A_VERDICT else ""
        return f"{self.mean:{form}} (95 % interval {self.low:{form}} to {self.high:{form}}{few}): {self.verdict}"


def mean_interval(samples: Samples, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean over scenarios with a percentile bootstrap interval that resamples whole scenarios.

    With one scenario its episodes are resampled instead; the interval then speaks of that scenario alone.

    Args:
        samples: the values of each scenario; scenarios without any are left out.
        level: share of the bootstrap distribution inside the interval.
        resamples: how many bootstrap samples.
        seed: of the generator.

    Raises:
        ValueError: no value at all.
    """
    kept = [np.asarray(values, dtype=np.float64) for values in samples.values() if len(values)]
    if not kept:
        raise ValueError("there is no scored episode to take a mean of")
    means = np.array([values.mean() for values in kept])
    low, high = _interval(means if len(kept) > 1 else kept[0], level, resamples, seed)
    return Estimate(float(means.mean()), low, high, len(kept), sum(len(values) for values in kept))


def share_interval(successes: Mapping[str, Sequence[bool]], *, seed: int = 0) -> Estimate:
    """Share of successes with its 95 % interval.

    The bootstrap of `mean_interval`; where every episode went the same way it would have no width, and Wilson's
    interval for as many trials as there are scenarios stands in; of one scenario, as there are episodes.

    Raises:
        ValueError: no episode at all.
    """
    estimate = mean_interval({key: [float(value) for value in values] for key, values in successes.items()}, seed=seed)
    if estimate.mean in (0.0, 1.0):
        trials = estimate.scenarios if estimate.scenarios > 1 else estimate.episodes
        low, high = wilson(round(estimate.mean * trials), trials)
        return Estimate(estimate.mean, low, high, estimate.scenarios, estimate.episodes)
    return estimate


def wilson(successes: int, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a share of independent trials (Wilson 1927).

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials is not possible")
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def paired_difference(
    before: Samples, after: Samples, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """How much `after` is above `before` on the scenarios that both have scored episodes of.

    Raises:
        ValueError: they share no scenario.
    """
    shared = [key for key in before if len(before[key]) and len(after.get(key, ()))]
    if not shared:
        raise ValueError("the two evaluations share no scored scenario, so there is nothing to compare")
    differences = np.array([np.mean(after[key]) - np.mean(before[key]) for key in shared], dtype=np.float64)
    low, high = _interval(differences, level, resamples, seed)
    verdict: Verdict = "no difference seen"
    if low is None or high is None or len(shared) < SCENARIOS_FOR_A_VERDICT:
        verdict = "too few scenarios to tell"
    elif low > ROUNDING or high < -ROUNDING:
        verdict = "better" if low > ROUNDING else "worse"
    return PairedDifference(float(differences.mean()), low, high, len(shared), verdict)


def pass_at_k(successes: int, samples: int, k: int) -> float:
    """Chance that at least one of k samples succeeds: `1 - C(n-c, k) / C(n, k)`, unbiased (2107.03374).

    Raises:
        ValueError: k is not between 1 and `samples`, or there are more successes than samples.
    """
    _check_k(successes, samples, k)
    return 1.0 - math.comb(samples - successes, k) / math.comb(samples, k)


def pass_hat_k(successes: int, samples: int, k: int) -> float:
    """Chance that all of k samples succeed (pass^k): `C(c, k) / C(n, k)`, unbiased (2406.12045).

    Raises:
        ValueError: k is not between 1 and `samples`, or there are more successes than samples.
    """
    _check_k(successes, samples, k)
    return math.comb(successes, k) / math.comb(samples, k)


def mean_of(values: Sequence[float]) -> float | None:
    """The plain mean; None of no values."""
    return sum(values) / len(values) if values else None


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation over all values.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("there is no value to take a mean of")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std())


def _interval(
    values: NDArray[np.float64], level: float, resamples: int, seed: int
) -> tuple[float, float] | tuple[None, None]:
    if len(values) < 2:
        return None, None
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    tail = (1 - level) / 2
    low, high = np.quantile(values[draws].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def _check_k(successes: int, samples: int, k: int) -> None:
    if not 0 <= successes <= samples:
        raise ValueError(f"{successes} successes in {samples} samples is not possible")
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}; with {samples} samples it can be 1 to {samples}")
