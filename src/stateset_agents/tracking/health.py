"""Whether a run trained as it should, from the rows of its `metrics.jsonl`.

Invariant: a pure function of the rows. What was not measured is said to be unknown and is never taken for healthy.
The thresholds are below, each by its name; none of them depends on the model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

GOOD_DIVERSITY = 0.05
"""Share of the attainable reward by which the samples of a group should differ (standard deviation)."""
NEAR_MAXIMUM = 0.95
"""Share of the attainable reward from which on little diversity is what success looks like."""
NORM_FACTOR = 3.0
"""A gradient norm further than this factor from the run's median is an outlier."""
STABLE_SHARE = 0.75
"""Share of steps that may not be outliers."""
FEWEST_STEPS = 10
"""Before that many steps nothing is said of a trend or of outliers: it would be the luck of a few conversations."""
FELL = 0.05
"""Share of the attainable reward by which it must have fallen at least; less is the luck of a few conversations."""
SAME_REWARD_SHARE = 0.5
"""Share of groups that may have equal rewards."""
FAILED_SHARE = 0.05
"""Share of episodes that may fail."""
BROKEN_SHARE = 0.5
"""Share of failed episodes from which on the numbers mean nothing."""
TRUNCATED_SHARE = 0.3
"""Share of episodes that may be cut by a limit."""
CUT_REPLIES_SHARE = 0.5
"""Share of replies that may be cut by max_new_tokens."""
MISMATCH = 0.1
"""Mean size of the difference of sampled and learned log-probs that rounding can explain, bfloat16 included."""


class HealthStatus(StrEnum):
    """How a run went."""

    HEALTHY = "HEALTHY"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    UNKNOWN = "UNKNOWN"
    """Nothing was trained or measured."""


@dataclass(frozen=True)
class Health:
    """What the rows show.

    Attributes:
        status: the worst of the issues.
        reward_diversity: mean over steps of the spread inside groups; None if not measured.
        diversity_word: "good" or "low".
        gradient_stability: share of steps whose gradient norm is within a factor 3 of the run's median; steps without
            any gradient are left out; None if no step had one.
        stability_word: "stable", "unstable", or "too few steps to judge" where it would be the latter.
        issues: one line each: what is wrong and what helps.
    """

    status: HealthStatus
    reward_diversity: float | None
    diversity_word: str
    gradient_stability: float | None
    stability_word: str
    issues: tuple[str, ...]


def assess(rows: Sequence[Mapping[str, Any]], attainable: float | None = None) -> Health:
    """Judge a run, or the part of it that `rows` are.

    Args:
        rows: of `metrics.jsonl`; keys that are missing are not judged. A `grad_norm` of null is one that was not
            finite, 0 is a step whose groups taught nothing.
        attainable: the highest reward that an episode can get, if known.
    """
    critical: list[str] = []
    warnings: list[str] = []
    scale = attainable if attainable is not None and attainable > 0 else 1.0
    start, end = _end_means(rows, "reward_mean")
    solved = attainable is not None and end is not None and end >= NEAR_MAXIMUM * attainable

    diversity = _mean(_numbers(rows, "reward_diversity"))
    low = diversity is not None and diversity < GOOD_DIVERSITY * scale
    if low and not solved:
        warnings.append("Low reward diversity: raise the temperature or num_generations, or refine the reward")
    flat = _mean(_numbers(rows, "zero_variance_share"))
    if flat is not None and flat > SAME_REWARD_SHARE and not solved:
        warnings.append(f"{flat:.0%} of the groups had equal rewards and taught nothing: raise num_generations")

    stability, broken, trained = _gradients(rows)
    # Where answers are read and not sampled, the gradient falls with the loss: that is no instability.
    if rows and all(row.get("sampled_tokens") == 0 for row in rows):
        stability = None
    restless = stability is not None and stability < STABLE_SHARE
    unstable = restless and len(rows) >= FEWEST_STEPS
    if broken:
        critical.append(f"{broken} of {len(rows)} steps had a gradient that is not finite: lower the learning rate")
    elif unstable:
        warnings.append("Unstable gradients: lower the learning rate or take the conservative profile")
    if trained == 0:
        critical.append("No step had a gradient, so nothing was learned: the rewards inside each group were equal")

    _judge_episodes(rows, critical, warnings)
    gap = _mean(_numbers(rows, "mismatch_size"))
    if gap is not None and gap > MISMATCH:
        critical.append(
            f"Sampler and learner disagree: a token's log-prob differs by {gap:.2f} on average, so what is trained is "
            "not what was sampled"
        )
    spread = _end_means(rows, "reward_std")[1]
    enough = len(rows) >= FEWEST_STEPS
    if (
        enough
        and start is not None
        and end is not None
        and spread is not None
        and end < start - max(spread / 2, FELL * scale)
    ):
        warnings.append(f"The reward fell from {start:.3f} to {end:.3f}: lower the learning rate or raise beta")

    status = HealthStatus.CRITICAL if critical else HealthStatus.WARNING if warnings else HealthStatus.HEALTHY
    if trained is None and not critical:
        status = HealthStatus.UNKNOWN
    near = ", as the reward is near its maximum" if low and solved else ""
    return Health(
        status,
        diversity,
        ("low" if low else "good") + near,
        stability,
        "unstable" if unstable or broken else "too few steps to judge" if restless else "stable",
        (*critical, *warnings),
    )


def end_window(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The last tenth of the steps, at least one: what "final" means in a report."""
    return rows[-math.ceil(len(rows) / 10) :] if rows else rows


def _gradients(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, int, int | None]:
    """Stability, how many norms are not finite, and how many steps had a gradient (None: not measured at all)."""
    norms = [row["grad_norm"] for row in rows if "grad_norm" in row]
    if not norms:
        return None, 0, None
    finite = [float(norm) for norm in norms if norm is not None and math.isfinite(norm)]
    broken = len(norms) - len(finite)
    moved = [norm for norm in finite if norm > 0]
    if not moved:
        return None, broken, broken
    median = statistics.median(moved)
    close = sum(median / NORM_FACTOR <= norm <= median * NORM_FACTOR for norm in moved)
    return close / (len(moved) + broken), broken, len(moved) + broken


def _judge_episodes(rows: Sequence[Mapping[str, Any]], critical: list[str], warnings: list[str]) -> None:
    played = sum(_numbers(rows, "step_episodes"))
    if not played:
        return
    failed = sum(_numbers(rows, "failed")) + sum(_numbers(rows, "unscored"))
    if failed / played > FAILED_SHARE:
        words = f"{failed:.0f} of {played:.0f} episodes failed or could not be scored: trajectories.jsonl says why"
        (critical if failed / played > BROKEN_SHARE else warnings).append(words)
    truncated = sum(_numbers(rows, "truncated"))
    if truncated / played > TRUNCATED_SHARE:
        warnings.append(f"{truncated / played:.0%} of the episodes were cut by a limit: raise max_turns or the context")
    replies, cut = sum(_numbers(rows, "replies")), sum(_numbers(rows, "cut_replies"))
    if replies and cut / replies > CUT_REPLIES_SHARE:
        warnings.append(f"{cut / replies:.0%} of the replies were cut by max_new_tokens: raise it")


def _end_means(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float | None, float | None]:
    size = len(end_window(rows))
    return _mean(_numbers(rows[:size], key)), _mean(_numbers(end_window(rows), key))


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = (row.get(key) for row in rows)
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
