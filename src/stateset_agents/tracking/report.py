"""The text at the end of a training run.

Invariant: every number is measured, over the steps that the notes below it name; one that was not measured is said to
be missing. The documented lines come first and word for word, what they mean comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.training import count
from .health import NORM_FACTOR, Health, HealthStatus, assess, end_window
from .performance import performance_lines

TITLE = "GRPO Agent Framework - Training Complete"
RULE = "=" * 38

_LEFT = {
    "agent": "failed_agent",
    "user": "failed_user",
    "environment": "failed_environment",
    "reward": "failed_reward",
    "unscored": "unscored",
}
"""Why episodes leave their groups, and the key of `metrics.jsonl` that counts them."""


@dataclass(frozen=True)
class RunSummary:
    """What the closing report says.

    Attributes:
        episodes: all that were played.
        steps: all that were made.
        final_steps: how many of them, at the end, the final numbers are over.
        final_episodes: how many episodes those steps played.
        reward_mean: final mean over episodes; None if none was scored.
        reward_std: spread over those episodes.
        success_rate: final share of successes; None if nothing states what success is.
        success_criterion: what counted as success, in words.
        length_mean: final mean number of assistant turns.
        attainable: the highest reward that an episode can get, if known.
        health: how the whole run went.
        saved_to: where the agent is; None if it was not saved.
        failures: how many episodes left their groups, by reason: who failed, or "unscored".
        notes: more lines for the end.
        losses: mean loss over the first and over the final steps of a run that learned from a file; else None.
        preference_accuracy: share of its pairs that the policy agrees with, over the final steps; None without pairs.
        evaluated: the first and the last mean reward of its evaluations; None without any.
        performance: where its time went, and its memory, line by line.
    """

    episodes: int
    steps: int
    final_steps: int
    final_episodes: int
    reward_mean: float | None
    reward_std: float | None
    success_rate: float | None
    success_criterion: str
    length_mean: float | None
    attainable: float | None
    health: Health
    saved_to: Path | str | None
    failures: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    losses: tuple[float, float] | None = None
    preference_accuracy: float | None = None
    evaluated: tuple[float, float] | None = None
    performance: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        *,
        success_criterion: str,
        attainable: float | None,
        saved_to: Path | str | None,
        notes: Sequence[str] = (),
        read: bool = False,
    ) -> RunSummary:
        """Sum up the rows of `metrics.jsonl`. The final numbers are over the last tenth of the steps.

        Args:
            rows: of the run.
            success_criterion, attainable, saved_to, notes: see the attributes.
            read: whether its conversations were read from a file.
        """
        final = end_window(rows)
        losses = _mean(rows[: len(final)], "loss"), _mean(final, "loss")
        evaluated = [float(row["eval_reward_mean"]) for row in rows if row.get("eval_reward_mean") is not None]
        scored = [(row, _scored(row)) for row in final]
        mean = _weighted(scored, "reward_mean")
        return cls(
            episodes=int(rows[-1].get("episodes") or 0) if rows else 0,
            steps=len(rows),
            final_steps=len(final),
            final_episodes=int(sum(row.get("step_episodes") or 0 for row in final)),
            reward_mean=mean,
            reward_std=None if mean is None else _pooled_std(scored, mean),
            success_rate=_weighted(scored, "success_rate"),
            success_criterion=success_criterion,
            length_mean=_weighted(scored, "length_mean"),
            attainable=attainable,
            health=assess(rows, attainable),
            saved_to=saved_to,
            failures={
                kind: count for kind, key in _LEFT.items() if (count := int(sum(row.get(key) or 0 for row in rows)))
            },
            notes=tuple(notes),
            losses=(losses[0], losses[1]) if read and losses[0] is not None and losses[1] is not None else None,
            preference_accuracy=_mean(final, "preference_accuracy"),
            evaluated=(evaluated[0], evaluated[-1]) if read and evaluated else None,
            performance=tuple(performance_lines(rows)),
        )


def training_report(summary: RunSummary) -> str:
    """The documented report, then notes on what its numbers mean.

    A run that learned from a file has a loss and no rewards; the lines of these are left out.
    """
    health = summary.health
    measured = [
        f"- Reward diversity: {_judged(health.reward_diversity, health.diversity_word)}",
        f"- Gradient stability: {_judged(health.gradient_stability, health.stability_word)}",
    ]
    lines = [
        TITLE,
        RULE,
        f"Episodes: {summary.episodes}",
        *(_of_rewards(summary) if summary.losses is None else _of_losses(summary, summary.losses)),
        "Average Episode Length: "
        + ("not measured" if summary.length_mean is None else f"{summary.length_mean:.1f} turns"),
        "",
        f"Training Health: {health.status}",
        *(measured if summary.losses is None else []),
        *(f"- {issue}" for issue in health.issues or ["No major issues detected"]),
        "",
        f"Agent saved to: {summary.saved_to or 'nowhere'}",
        "",
        *_notes(summary),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _of_rewards(summary: RunSummary) -> list[str]:
    return [
        f"Final Reward: {_with_spread(summary)}",
        f"Success Rate: {'not measured' if summary.success_rate is None else f'{summary.success_rate:.1%}'}",
    ]


def _of_losses(summary: RunSummary, losses: tuple[float, float]) -> list[str]:
    lines = [f"Final Loss: {losses[1]:.3f} (at first {losses[0]:.3f})"]
    if summary.preference_accuracy is not None:
        lines.append(f"Preference Accuracy: {summary.preference_accuracy:.1%}")
    if summary.evaluated is not None:
        lines.append(f"Evaluated Reward: {summary.evaluated[1]:.3f} (at first {summary.evaluated[0]:.3f})")
    return lines


def _notes(summary: RunSummary) -> list[str]:
    notes = []
    if summary.losses is not None:
        return [
            "The run learned from a file: an episode is one of its records, and none was played.",
            f"The loss is over {_window(summary, 'the first and the last')}.",
            *_signals(summary.health),
            *summary.notes,
            *summary.performance,
        ]
    if summary.final_steps:
        notes.append(
            f"Reward, success and length are over {_window(summary, 'the last')} "
            f"({count(summary.final_episodes, 'episode')})."
        )
    if summary.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.items())
        notes.append(
            f"{sum(summary.failures.values())} of {summary.episodes} episodes failed or could not be scored ({kinds}): "
            "they are in no mean and taught nothing. trajectories.jsonl says why."
        )
    if summary.attainable is not None:
        notes.append(f"The attainable reward is {summary.attainable:.3g}.")
    if summary.success_rate is not None:
        notes.append(f"Success is judged by {summary.success_criterion}.")
    if summary.health.gradient_stability is not None:
        notes.append(
            f"Gradient stability is the share of steps whose gradient norm is within a factor of {NORM_FACTOR:.0f} "
            "of the run's median."
        )
    return [*notes, *_signals(summary.health), *summary.notes, *summary.performance]


def _signals(health: Health) -> list[str]:
    """The signs that have no line above: those that are fine, and those that nobody measured."""
    told = ("Reward diversity", "Gradient stability")
    rest = [one for one in health.signals if not one.wrong and one.name not in told]
    fine = [f"{one.name} {one.shown}" for one in rest if one.status is HealthStatus.HEALTHY]
    unknown = [one.name for one in rest if one.status is HealthStatus.UNKNOWN]
    lines = [f"Fine: {'; '.join(fine)}."] if fine else []
    return lines + ([f"Not measured, or too few steps to judge: {'; '.join(unknown)}."] if unknown else [])


def _window(summary: RunSummary, which: str) -> str:
    """The steps that the final numbers are over: "the last 2 of 20 steps"."""
    if summary.steps == 1:
        return "the only step"
    return which + (f" {summary.final_steps}" if summary.final_steps > 1 else "") + f" of {summary.steps} steps"


def _with_spread(summary: RunSummary) -> str:
    if summary.reward_mean is None or summary.reward_std is None:
        return "not measured (no episode was scored)"
    return f"{summary.reward_mean:.3f} ± {summary.reward_std:.3f}"


def _judged(value: float | None, word: str) -> str:
    return "not measured" if value is None else f"{value:.3f} ({word})"


def _scored(row: Mapping[str, Any]) -> float:
    """How many episodes a row's means are over; rows that do not say count alike."""
    played = row.get("step_episodes")
    if played is None:
        return 1.0
    return float(played - (row.get("failed") or 0) - (row.get("unscored") or 0))


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over the steps that measured it."""
    return _weighted([(row, 1.0) for row in rows], key)


def _weighted(rows: Sequence[tuple[Mapping[str, Any], float]], key: str) -> float | None:
    pairs = [(float(row[key]), weight) for row, weight in rows if row.get(key) is not None and weight > 0]
    whole = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / whole if whole else None


def _pooled_std(rows: Sequence[tuple[Mapping[str, Any], float]], mean: float) -> float | None:
    """Spread over all episodes of the rows, from each row's mean and spread."""
    squares = [
        ({"square": float(row["reward_std"]) ** 2 + (float(row["reward_mean"]) - mean) ** 2}, weight)
        for row, weight in rows
        if row.get("reward_std") is not None and row.get("reward_mean") is not None
    ]
    variance = _weighted(squares, "square")
    return None if variance is None else math.sqrt(variance)
