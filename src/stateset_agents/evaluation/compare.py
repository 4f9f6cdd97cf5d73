"""Before and after: what changed, how sure that is, and how it looks.

Invariant: the conversation that is shown is the typical one, not the best. It comes from the scenario whose improvement
is the median, and from that scenario the samples whose rewards are nearest to the scenario's means.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.training import count
from ..core.trajectory import MultiTurnTrajectory
from .result import EvaluationResult
from .statistics import Estimate, PairedDifference, mean_interval, mean_of, paired_difference, share_interval

T = TypeVar("T")

_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same scenarios.

    Attributes:
        before: the first one.
        after: the second one.
        reward: paired difference of rewards.
        success: paired difference of success shares; None where nothing states what success is.
        scenario_id: the scenario of median improvement.
        episodes: its typical conversation before and after.
    """

    before: EvaluationResult
    after: EvaluationResult
    reward: PairedDifference
    success: PairedDifference | None
    scenario_id: str
    episodes: tuple[MultiTurnTrajectory, MultiTurnTrajectory]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "reward": self.reward.to_dict(),
            "success": self.success.to_dict() if self.success else None,
            "median_scenario": self.scenario_id,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    def summary(self) -> str:
        """Some lines for a terminal."""
        lines = [f"{count(self.reward.scenarios, 'scenario')}, before and after"]
        for name, before, after, difference, form in self.changes():
            lines += [
                f"{name:8} before  {before.text(form)}",
                f"{name:8} after   {after.text(form)}",
                f"{name:8} change  {difference.text('+' + form)}",
            ]
        return "\n".join(lines)

    def changes(self) -> Iterator[tuple[str, Estimate, Estimate, PairedDifference, str]]:
        """What was compared: its name, before and after over the scenarios that both have, the change, and its form."""
        rewards = _shared(self.before.rewards, self.after.rewards)
        yield "reward", mean_interval(rewards[0]), mean_interval(rewards[1]), self.reward, ".3f"
        if self.success is not None:
            successes = _shared(self.before.successes, self.after.successes)
            yield "success", share_interval(successes[0]), share_interval(successes[1]), self.success, ".1%"

    def side_by_side(self, width: int = 100) -> str:
        """The typical conversation before and after, in two columns."""
        return side_by_side(*self.episodes, width)


def compare(before: EvaluationResult, after: EvaluationResult) -> Comparison:
    """Pair two evaluations by scenario.

    Raises:
        ValueError: they share no scored scenario.
    """
    reward = paired_difference(before.rewards, after.rewards)
    successes = (before.successes, after.successes)
    judged = any(successes[0][key] and successes[1].get(key) for key in successes[0])
    scenario_id = _median_scenario(before, after)
    return Comparison(
        before,
        after,
        reward,
        paired_difference(*successes) if judged else None,
        scenario_id,
        (_typical(before, scenario_id), _typical(after, scenario_id)),
    )


def side_by_side(before: MultiTurnTrajectory, after: MultiTurnTrajectory, width: int = 100) -> str:
    """One conversation twice, in two columns of plain text.

    Control characters are left out: what a model writes must not steer the terminal.

    Args:
        before: shown on the left.
        after: shown on the right.
        width: of the whole, in terminal cells.
    """
    table = Table(box=box.SIMPLE_HEAD, width=width, show_lines=False, padding=(0, 1), pad_edge=False)
    for name, episode in (("before", before), ("after", after)):
        table.add_column(Text(f"{name}: {_verdict(episode)}"), ratio=1, overflow="fold")
    for left, right in zip_longest(_lines(before), _lines(after), fillvalue=""):
        table.add_row(Text(left), Text(right))
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=False, color_system=None, legacy_windows=False)
    console.print(Text(f"scenario {before.scenario_id}"))
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def episode_lines(episode: MultiTurnTrajectory) -> list[str]:
    """One conversation as lines of plain text, without control characters: how it went, then who said what."""
    sample = episode.key.rpartition("/")[2]
    length = f"{episode.length} turn{'' if episode.length == 1 else 's'}"
    failed = f", failed: {episode.error}" if episode.error else ""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in episode.breakdown.items())
    head = f"{episode.scenario_id}, sample {sample}: {_verdict(episode)}, {length}{failed}"
    return [plain(line) for line in (head, *([parts] if parts else []), *(line.rstrip() for line in _lines(episode)))]


def plain(text: str) -> str:
    """Text without control characters, which could steer a terminal."""
    return text.translate(_CONTROL)


def _shared(before: Mapping[str, list[T]], after: Mapping[str, list[T]]) -> tuple[dict[str, list[T]], ...]:
    """The values of the scenarios that have some on both sides."""
    names = [name for name, values in before.items() if values and after.get(name)]
    return tuple({name: side[name] for name in names} for side in (before, after))


def _median_scenario(before: EvaluationResult, after: EvaluationResult) -> str:
    """The scenario of median improvement; of an even number, the lower of the two in the middle."""
    rewards = after.rewards
    improvements = [
        ((mean_of(rewards[key]) or 0.0) - (mean_of(values) or 0.0), order, key)
        for order, (key, values) in enumerate(before.rewards.items())
        if values and rewards.get(key)
    ]
    return sorted(improvements)[(len(improvements) - 1) // 2][2]


def _typical(result: EvaluationResult, scenario_id: str) -> MultiTurnTrajectory:
    group = next(group for group in result.groups if group.scenario_id == scenario_id)
    mean = mean_of(group.rewards) or 0.0
    return min(group.trajectories, key=lambda episode: abs((episode.reward or 0.0) - mean))


def _lines(episode: MultiTurnTrajectory) -> list[str]:
    return [f"{turn.role}: {plain(turn.content)}\n" for turn in episode.turns]


def _verdict(episode: MultiTurnTrajectory) -> str:
    reward = "not scored" if episode.reward is None else f"reward {episode.reward:.3f}"
    success = {True: ", success", False: ", no success", None: ""}[episode.success]
    cut = ", cut by a limit" if episode.outcome == "truncated" else ""
    return reward + success + cut
