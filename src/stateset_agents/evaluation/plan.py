"""How many episodes an evaluation plays, of which scenarios.

Invariant: every scenario that is played is played equally often, because it is scenarios that are averaged over. Where
that makes another number than was asked for, it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config.training import count
from ..core.errors import ConfigError
from ..core.scenario import Scenario

DEFAULT_EPISODES = 100


@dataclass(frozen=True)
class Plan:
    """Which episodes are played.

    Attributes:
        scenarios: what is played.
        samples: how often each.
        note: how that came about, where it is not what was asked for to the episode; "" where it is.
    """

    scenarios: tuple[Scenario, ...]
    samples: int
    note: str = ""

    @property
    def episodes(self) -> int:
        """How many that makes."""
        return len(self.scenarios) * self.samples


def plan_of(scenarios: Sequence[Scenario], num_episodes: int | None, samples: int | None) -> Plan:
    """Spread episodes over scenarios, the same number for each.

    Raises:
        ConfigError: a number is less than 1.
    """
    for name, number in (("--num-episodes", num_episodes), ("--samples", samples)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} is {number}; it must be at least 1")
    wanted = num_episodes or (DEFAULT_EPISODES if samples is None else len(scenarios) * samples)
    each = samples or max(1, -(-wanted // len(scenarios)))
    many = min(len(scenarios), -(-wanted // each))
    chosen = tuple(scenarios[place * len(scenarios) // many] for place in range(many))
    plan = Plan(chosen, each)
    spread = f"{count(each, 'sample')} of {'each of ' if many > 1 else ''}{count(many, 'scenario')}"
    if many < len(scenarios):
        return replace(plan, note=f"episodes: {spread}, taken evenly from all {len(scenarios)}")
    if plan.episodes != wanted:
        return replace(plan, note=f"episodes: {spread} make {plan.episodes}, not {wanted}: every scenario counts alike")
    return plan
