"""Every move that a run may make by itself: what it looks at, over how many steps, what it changes, and how far.

Invariant: each move goes one way and has a bound, so that a run makes a bounded number of them. A rule looks at steps
after the last move alone; that it needs `window` of them is its cool-down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import signals
from .settings import ONE, Settings
from .signals import Rows, Signal

SMALLEST_RATE = 1 / 64
CUT_STEPS = 3
"""A single cut costs nothing, as the policy is kept; what is cut every time takes the rate down."""
MOST_BETA = 16.0
MOST_CLIP = 2.0
MOST_TEMPERATURE = 2.0
MOST_GENERATIONS = 4
FEWEST_SCENARIOS = 2
"""Of a step: with one alone, what the others taught is forgotten."""
WARMER = 1.5
WIDER = 1.25


@dataclass(frozen=True)
class Rule:
    """One kind of move.

    Attributes:
        signal: its name in rows, reports and documents.
        looks: says whether to act.
        window: steps since the last move that it needs.
        setting: what it moves.
        change: the next value, from what is in force and the last row; the same value where there is no next.
        words: of the move, for the documents.
        bound: of the setting, in words.
    """

    signal: str
    looks: Signal
    window: int
    setting: str
    change: Callable[[Settings, Settings, Rows], float]
    words: str
    bound: str


def _by_share(now: Settings, first: Settings, rows: Rows) -> float:
    return _rate(now, first, signals.largest_share(rows[-CUT_STEPS:]) or 1.0)


def _half(now: Settings, first: Settings, _: Rows) -> float:
    return _rate(now, first, 0.5)


def _rate(now: Settings, first: Settings, factor: float) -> float:
    return max(now.config.learning_rate * factor, first.config.learning_rate * SMALLEST_RATE)


def _more_beta(now: Settings, first: Settings, _: Rows) -> float:
    return min(now.config.beta * 2, first.config.beta * MOST_BETA)


def _wider_clip(now: Settings, first: Settings, _: Rows) -> float:
    return min(now.config.clip_high * WIDER, first.config.clip_high * MOST_CLIP)


def _warmer(now: Settings, first: Settings, _: Rows) -> float:
    return max(now.temperature, min(now.temperature * WARMER, max(ONE, first.temperature * MOST_TEMPERATURE)))


def _towards_one(now: Settings, _: Settings, __: Rows) -> float:
    return max(now.temperature, min(now.temperature * 2, ONE))


def _larger_groups(now: Settings, first: Settings, _: Rows) -> float:
    """Twice as many samples of half as many scenarios."""
    size = 2 * now.config.num_generations
    most = MOST_GENERATIONS * first.config.num_generations
    scenarios, rest = divmod(now.config.plan.conversations_per_step, size)
    return size if not rest and scenarios >= FEWEST_SCENARIOS and size <= most else size // 2


def _rest(_: Settings, __: Settings, rows: Rows) -> float:
    """Only where some scenario taught something."""
    return float(any(row.get("updated") for row in rows))


RULES = (
    Rule(
        "step_too_large", signals.shortened, CUT_STEPS, "learning_rate", _by_share,
        "times the largest share of them that was made", "1/64 of the configured one",
    ),
    Rule("ratio_off", signals.ratio_off, 3, "learning_rate", _half, "halved", "1/64 of the configured one"),
    Rule(
        "far_from_reference", signals.far_from_reference, 6, "beta", _more_beta,
        "doubled, where there is a reference", "16 times the configured one",
    ),
    Rule("restless_gradients", signals.restless, 10, "learning_rate", _half, "halved", "1/64 of the configured one"),
    Rule("reward_fell", signals.fell, 10, "learning_rate", _half, "halved", "1/64 of the configured one"),
    Rule(
        "entropy_collapsed", signals.collapsed, 4, "temperature", _warmer,
        "half as much again", "1, or twice the configured one",
    ),
    Rule(
        "entropy_collapsed", signals.collapsed, 4, "clip_high", _wider_clip,
        "a quarter more, where a step has more than one update", "twice the configured one",
    ),
    Rule("equal_groups", signals.equal_groups, 3, "temperature", _towards_one, "doubled", "1"),
    Rule(
        "equal_groups", signals.equal_groups, 3, "num_generations", _larger_groups,
        "doubled, on half as many scenarios a step", "4 times the configured one, on 2 scenarios a step",
    ),
    Rule("many_equal_groups", signals.many_equal_groups, 10, "temperature", _towards_one, "doubled", "1"),
    Rule(
        "many_equal_groups", signals.many_equal_groups, 10, "curriculum", _rest,
        "unsolved scenarios whose last three groups were equal rest in every other round, if others do teach", "on",
    ),
)  # fmt: skip
"""In the order in which they are asked; the first that moves something is the move of a step."""
