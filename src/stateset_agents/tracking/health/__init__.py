"""Whether a run trained as it should, from the rows of its `metrics.jsonl`.

Invariant: a pure function of the rows. What was not measured is said to be unknown and is never taken for healthy.

    evidence.py          the rows, as signs look at them
    signal.py            what a sign is: keys, limit, meaning, action, severity
    of_rewards.py, of_updates.py, of_conversations.py
                         the signs, each with its thresholds by name; none of them depends on the model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..learning import Learning
from . import of_conversations, of_rewards, of_updates
from .evidence import FEWEST_STEPS, NEAR_MAXIMUM, Evidence, end_window
from .of_rewards import GOOD_DIVERSITY
from .of_updates import NORM_FACTOR, STABLE_SHARE
from .signal import HealthStatus, Reading, Signal

__all__ = [
    "FEWEST_STEPS",
    "NEAR_MAXIMUM",
    "NORM_FACTOR",
    "SIGNALS",
    "Health",
    "HealthStatus",
    "Reading",
    "Signal",
    "assess",
    "end_window",
]

SIGNALS = (*of_rewards.SIGNALS, *of_updates.SIGNALS, *of_conversations.SIGNALS)


@dataclass(frozen=True)
class Health:
    """What the rows show.

    Attributes:
        status: the worst of the signs.
        reward_diversity: mean over steps of the spread inside groups; None if not measured.
        diversity_word: "good" or "low".
        gradient_stability: share of steps whose gradient norm is within a factor 3 of the run's median; steps without
            any gradient are left out; None if no step had one.
        stability_word: "stable", "unstable", or "too few steps to judge" where it would be the latter.
        issues: one line for each sign that is not fine, the worst first: what is wrong and what helps.
        suggestions: what helps, in the same order, each once.
        signals: every sign, those that are fine or were not measured too.
    """

    status: HealthStatus
    reward_diversity: float | None
    diversity_word: str
    gradient_stability: float | None
    stability_word: str
    issues: tuple[str, ...]
    suggestions: tuple[str, ...] = ()
    signals: tuple[Reading, ...] = ()


def assess(
    rows: Sequence[Mapping[str, Any]], attainable: float | None = None, *, learning: Learning | None = None
) -> Health:
    """Judge a run, or the part of it that `rows` are.

    Args:
        rows: of `metrics.jsonl`; keys that are missing are not judged. A `grad_norm` of null is one that was not
            finite, 0 is a step whose groups taught nothing.
        attainable: the highest reward that an episode can get, if known.
        learning: whether the run learns, where that was judged from more rows than these; None judges these.

    Raises:
        TypeError: `rows` is no sequence of mappings.
    """
    if isinstance(rows, str | Mapping) or not isinstance(rows, Sequence):
        raise TypeError(f"rows is a {type(rows).__name__}; it must be a list of the rows of metrics.jsonl")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"rows[{index}] is a {type(row).__name__}; each must be a dict, as a line of metrics.jsonl is"
            )
    evidence = Evidence(rows, attainable, learning)
    signals = tuple(signal.read(evidence) for signal in SIGNALS)
    critical = [one for one in signals if one.status is HealthStatus.CRITICAL]
    wrong = [*critical, *(one for one in signals if one.status is HealthStatus.WARNING)]
    named = {one.name: one for one in signals}
    status = HealthStatus.HEALTHY
    if wrong:
        status = wrong[0].status
    if not critical and named["Gradient"].status is HealthStatus.UNKNOWN:
        status = HealthStatus.UNKNOWN
    spread, stability = named["Reward diversity"].value, named["Gradient stability"].value
    low = spread is not None and spread < GOOD_DIVERSITY * evidence.scale
    return Health(
        status,
        spread,
        ("low" if low else "good") + (", as the reward is near its maximum" if low and evidence.solved else ""),
        stability,
        _stability_word(named["Gradient"], named["Gradient stability"], stability),
        tuple(one.issue for one in wrong),
        tuple(dict.fromkeys(one.action for one in wrong)),
        signals,
    )


def _stability_word(gradient: Reading, stability: Reading, share: float | None) -> str:
    if stability.wrong or (gradient.wrong and share is not None):
        return "unstable"
    return "too few steps to judge" if share is not None and share < STABLE_SHARE else "stable"
