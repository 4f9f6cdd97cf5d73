"""What an evaluation found.

Invariant: every number is computed from the episodes that are kept in it, so that it can be checked against them.
Means over scenarios carry their interval; failed episodes enter none, and are counted by who failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..config.training import count
from ..core.scenario import Scenario
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..core.users import in_words
from ..rollouts import RolloutCounts
from .metrics import SuccessCriterion, parts
from .statistics import Estimate, mean_and_std, mean_interval, mean_of, pass_at_k, pass_hat_k, share_interval


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario's row.

    Attributes:
        id: the scenario.
        category: its `metadata.category`, else its type, else "other".
        episodes: how many were scored.
        failed: how many were not.
        reward: mean of the scored ones, None without any.
        success: share of those that a criterion judged, None without any.
        length: mean number of assistant turns, None without any.
    """

    id: str
    category: str
    episodes: int
    failed: int
    reward: float | None
    success: float | None
    length: float | None


@dataclass(frozen=True)
class CategoryResult:
    """The scenarios of one category together."""

    name: str
    scenarios: int
    reward: Estimate | None
    success: Estimate | None


@dataclass(frozen=True)
class EvaluationResult:
    """An agent on a set of scenarios.

    Attributes:
        scenarios: what was played, in order.
        groups: the episodes, one group for each scenario.
        criterion: what counted as success.
        samples: episodes for each scenario.
        key: names the sampling noise; two evaluations with the same key differ by their weights alone.
        seconds: wall time.
        user: who answered the agent (see `Environment.describe_user`).
    """

    scenarios: tuple[Scenario, ...]
    groups: tuple[TrajectoryGroup, ...]
    criterion: SuccessCriterion
    samples: int
    key: str
    seconds: float
    user: Mapping[str, Any] | None = None

    @cached_property
    def episodes(self) -> list[MultiTurnTrajectory]:
        """The scored episodes."""
        return [episode for group in self.groups for episode in group.trajectories]

    @cached_property
    def rewards(self) -> dict[str, list[float]]:
        """The scored rewards of each scenario."""
        return {group.scenario_id: group.rewards for group in self.groups}

    @cached_property
    def successes(self) -> dict[str, list[bool]]:
        """Success of each scenario's scored episodes, as far as a criterion judges them."""
        judged: dict[str, list[bool]] = {}
        for group in self.groups:
            verdicts = map(self.criterion.succeeded, group.trajectories)
            judged[group.scenario_id] = [verdict for verdict in verdicts if verdict is not None]
        return judged

    @cached_property
    def reward(self) -> Estimate | None:
        """Mean reward, every scenario weighing the same; None if nothing was scored."""
        return mean_interval(self.rewards) if self.episodes else None

    @cached_property
    def success(self) -> Estimate | None:
        """Share of successes, every scenario weighing the same; None if nothing states what success is."""
        return share_interval(self.successes) if any(self.successes.values()) else None

    @property
    def reward_std(self) -> float | None:
        """Population standard deviation over episodes."""
        return mean_and_std([e.reward for e in self.episodes if e.reward is not None])[1] if self.episodes else None

    @property
    def length(self) -> tuple[float, float] | None:
        """Mean and standard deviation over episodes of the number of assistant turns."""
        return mean_and_std([float(episode.length) for episode in self.episodes]) if self.episodes else None

    @property
    def components(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over episodes of each part of the reward. Parts for single turns are left out."""
        return {name: mean_and_std(column) for name, column in parts(self.groups).items()}

    @property
    def counts(self) -> RolloutCounts:
        """What became of all episodes."""
        return RolloutCounts.of(self.groups)

    @property
    def failures(self) -> dict[str, int]:
        """Episodes that are in no mean, by reason: who failed, or "unscored"."""
        kinds = (e.outcome.value if not e.outcome.scored else "unscored" for g in self.groups for e in g.failures)
        return dict(Counter(kinds))

    @property
    def tool_calls(self) -> dict[str, int]:
        """Calls of tools in the scored episodes: how many were answered ("ok"), and how many were not, by reason."""
        results = (turn.tool_result for episode in self.episodes for turn in episode.turns)
        return dict(Counter(one.error.value if one.error else "ok" for one in results if one is not None).most_common())

    @cached_property
    def by_scenario(self) -> list[ScenarioResult]:
        """One row for each scenario, in order."""
        rows = []
        for scenario, group in zip(self.scenarios, self.groups, strict=True):
            successes = self.successes[group.scenario_id]
            rows.append(
                ScenarioResult(
                    scenario.id,
                    category_of(scenario),
                    len(group.trajectories),
                    len(group.failures),
                    mean_of(group.rewards),
                    mean_of(successes),
                    mean_of([episode.length for episode in group.trajectories]),
                )
            )
        return rows

    @property
    def by_category(self) -> list[CategoryResult]:
        """One row for each category, in the order in which they first come."""
        members: dict[str, list[str]] = {}
        for row in self.by_scenario:
            members.setdefault(row.category, []).append(row.id)

        def together(name: str, ids: list[str]) -> CategoryResult:
            rewards = {identity: self.rewards[identity] for identity in ids}
            successes = {identity: self.successes[identity] for identity in ids}
            return CategoryResult(
                name,
                len(ids),
                mean_interval(rewards) if any(rewards.values()) else None,
                share_interval(successes) if any(successes.values()) else None,
            )

        return [together(name, ids) for name, ids in members.items()]

    def pass_rates(self, k: int) -> tuple[float, float] | None:
        """pass@k (at least one of k succeeds) and pass^k (all of k do), averaged over scenarios with k judged episodes.

        Returns:
            None if no scenario has that many.
        """
        counts = [(sum(verdicts), len(verdicts)) for verdicts in self.successes.values() if len(verdicts) >= k]
        if not counts:
            return None
        some = sum(pass_at_k(successes, judged, k) for successes, judged in counts) / len(counts)
        every = sum(pass_hat_k(successes, judged, k) for successes, judged in counts) / len(counts)
        return some, every

    def metrics(self) -> dict[str, float | None]:
        """The `eval_*` keys of a step's row in `metrics.jsonl`."""
        reward, success, length = self.reward, self.success, self.length
        return {
            "eval_reward_mean": reward.mean if reward else None,
            "eval_reward_low": reward.low if reward else None,
            "eval_reward_high": reward.high if reward else None,
            "eval_success_rate": success.mean if success else None,
            "eval_length_mean": length[0] if length else None,
            "eval_episodes": self.counts.episodes,
            "eval_failed": sum(self.failures.values()),
            "eval_seconds": self.seconds,
        }

    def to_dict(self, *, episodes: bool = False) -> dict[str, Any]:
        """JSON form; with `episodes`, the conversations too."""
        some = {k: rates for k in range(1, self.samples + 1) if (rates := self.pass_rates(k))}
        data: dict[str, Any] = {
            "scenarios": len(self.scenarios),
            "samples": self.samples,
            "key": self.key,
            "seconds": self.seconds,
            "user": dict(self.user) if self.user else None,
            "reward": self.reward.to_dict() if self.reward else None,
            "reward_std": self.reward_std,
            "attainable": self.criterion.attainable,
            "success": self.success.to_dict() if self.success else None,
            "success_criterion": self.criterion.text(self.episodes),
            "pass_at_k": {str(k): rates[0] for k, rates in some.items()},
            "pass_hat_k": {str(k): rates[1] for k, rates in some.items()},
            "length": dict(zip(("mean", "std"), self.length, strict=True)) if self.length else None,
            "components": {name: {"mean": mean, "std": std} for name, (mean, std) in self.components.items()},
            "tool_calls": self.tool_calls,
            "failures": self.failures,
            "truncated": self.counts.truncated,
            "by_category": [asdict(row) for row in self.by_category],
            "by_scenario": [asdict(row) for row in self.by_scenario],
        }
        if episodes:
            data["episodes"] = [e.to_dict() for g in self.groups for e in (*g.trajectories, *g.failures)]
        return data

    def summary(self) -> str:
        """Some lines for a terminal."""
        counts = self.counts
        played = f"{count(len(self.scenarios), 'scenario')} x {count(self.samples, 'sample')}"
        lines = [f"{played}, {self.seconds:.0f} s"]
        if self.user and self.user != {"type": "scripted"}:
            lines.append(f"user     {in_words(self.user)}")
        if self.reward and self.length:
            attainable = self.criterion.attainable
            lines.append(f"reward   {self.reward.text()}" + (f" of {attainable:.3g}" if attainable is not None else ""))
            if self.success:
                lines.append(f"success  {self.success.text('.1%')}, by {self.criterion.text(self.episodes)}")
            lines.append(f"length   {self.length[0]:.1f} ± {self.length[1]:.1f} assistant turns")
            lines += [f"  {name}: {mean:.3f} ± {std:.3f}" for name, (mean, std) in self.components.items()]
        else:
            lines.append("no episode could be scored")
        if counts.truncated:
            lines.append(f"{counts.truncated} of {counts.episodes} episodes were cut by a limit")
        if self.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.items())
            lines.append(f"{sum(self.failures.values())} of {counts.episodes} episodes are in no mean: {kinds}")
            first = next((e.error for g in self.groups for e in g.failures if e.error), None)
            lines += [f"  first error: {first}"] if first else []
        return "\n".join(lines)


def category_of(scenario: Scenario) -> str:
    """The category under which reports group a scenario."""
    return str(scenario.metadata.get("category") or scenario.type or "other")
