"""An evaluation as text: first what the documents print, in their order and words, then how far it can be trusted.

Invariant: a line whose number was not measured is left out, and the notes say why; none shows a number that
`EvaluationResult` does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config.training import count
from .report import Report
from .result import EvaluationResult, ScenarioResult

TITLE = "Agent Evaluation Results"
PERFORMANCE = {
    "reward": "Average Reward",
    "success_rate": "Success Rate",
    "length": "Average Episode Length",
    "engagement": "Engagement Score",
}
BREAKDOWN = {
    "helpfulness": "Helpfulness",
    "safety": "Safety",
    "conciseness": "Conciseness",
    "task_completion": "Task Completion",
}
LABELS = PERFORMANCE | BREAKDOWN
"""How reports call what was measured."""
_LISTED = 3
_SPAN = 5
_SPANS_SHOWN = 3


def text_report(report: Report) -> str:
    """The report of `grpo-evaluate`."""
    sections = [
        _head(report),
        _listed("Performance Metrics:", _measured(report, PERFORMANCE)),
        _listed("Detailed Breakdown:", _measured(report, BREAKDOWN)),
        _listed("Episode Length Distribution:", _lengths(report)),
        *_scenarios(report),
        _listed("Certainty:", _certainty(report)),
        _listed(f"Compared with {report.compared_with}:", _comparison(report)),
        _listed("Notes:", (f"- {note}" for note in notes(report))),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def notes(report: Report) -> list[str]:
    """What a reader should know: what is left out and why, what went wrong, who was compared with."""
    return [*_left_out(report), *_what_happened(report), *report.notes]


def shown(result: EvaluationResult, metric: str) -> str | None:
    """One measure of a result as text; None where there is nothing that could be measured."""
    if metric == "reward":
        reward, std = result.reward, result.reward_std
        return None if reward is None or std is None else f"{reward.mean:.3f} ± {std:.3f}"
    if metric == "success_rate":
        return None if result.success is None else f"{result.success.mean:.1%}"
    if metric == "length":
        return None if result.length is None else f"{result.length[0]:.1f} ± {result.length[1]:.1f} turns"
    part = result.components.get(metric)
    return None if part is None else f"{part[0]:.3f} ± {part[1]:.3f}"


def why_missing(metric: str) -> str:
    """Why a measure is not there."""
    if metric == "success_rate":
        return "neither the scenarios nor the reward say what success is"
    if metric == "task_completion":
        return "nothing says what there was to do, or whether it was done"
    return "it was not measured"


def length_shares(result: EvaluationResult) -> list[tuple[str, float]]:
    """Share of the episodes by length, in spans of five turns: "1-5", "6-10" and "11-15", and more where there are."""
    lengths = [episode.length for episode in result.episodes]
    if not lengths:
        return []
    spans = max(_SPANS_SHOWN, (max(lengths) + _SPAN - 1) // _SPAN)
    counts = [sum((max(length, 1) - 1) // _SPAN == span for length in lengths) for span in range(spans)]
    return [(f"{span * _SPAN + 1}-{(span + 1) * _SPAN}", count / len(lengths)) for span, count in enumerate(counts)]


def best_and_worst(result: EvaluationResult) -> tuple[list[ScenarioResult], list[ScenarioResult]]:
    """The scenarios with the highest mean reward, and the lowest of those that are below the average."""
    scored = [row for row in result.by_scenario if row.reward is not None]
    ranked = sorted(scored, key=lambda row: -(row.reward or 0.0))
    average = result.reward.mean if result.reward else 0.0
    best = ranked[:_LISTED]
    below = [row for row in ranked if row.reward is not None and row.reward < average - 1e-9 and row not in best]
    return best, below[-_LISTED:]


def pass_rates(result: EvaluationResult) -> list[tuple[int, float, float]]:
    """(k, pass@k, pass^k) for 1, 2, 4, ... and for as many samples as there are."""
    wanted = {2**power for power in range(result.samples.bit_length())} | {result.samples}
    rates = {k: result.pass_rates(k) for k in sorted(wanted) if k <= result.samples}
    return [(k, *found) for k, found in rates.items() if found is not None]


def _head(report: Report) -> list[str]:
    counted = report.result.counts.episodes
    episodes = f"{counted}" if not report.interrupted else f"{counted} of {report.planned} (interrupted)"
    return [
        TITLE,
        "=" * len(TITLE),
        f"Checkpoint: {report.checkpoint}",
        f"Episodes: {episodes}",
        f"Evaluation Time: {report.result.seconds / 60:.1f} minutes",
    ]


def _measured(report: Report, labels: dict[str, str]) -> Iterator[str]:
    for metric, label in labels.items():
        value = shown(report.result, metric) if metric in report.metrics else None
        if value is not None:
            beside = [f"{name} {floor}" for name, floor in floor_values(report, metric)]
            yield f"- {label}: {value}" + (f" ({', '.join(beside)})" if beside else "")


def floor_values(report: Report, metric: str) -> Iterator[tuple[str, str]]:
    """What the floors have of a measure: (name, mean)."""
    for name, result in report.measured_floors.items():
        if (value := shown(result, metric)) is not None:
            yield name, value.partition(" ± ")[0]


def _lengths(report: Report) -> Iterator[str]:
    if "length" in report.metrics:
        for span, share in length_shares(report.result):
            yield f"- {span} turns: {share:.0%}"


def _scenarios(report: Report) -> Iterator[list[str]]:
    if "reward" not in report.metrics:
        return
    best, worst = best_and_worst(report.result)
    yield _listed(
        "Top Performing Scenarios:",
        (f"{place}. {row.id}: {row.reward:.3f} avg reward" for place, row in enumerate(best, 1)),
    )
    yield _listed(
        "Improvement Opportunities:", (f"- {row.id}: {row.reward:.3f} avg reward (below average)" for row in worst)
    )


def _certainty(report: Report) -> Iterator[str]:
    result = report.result
    if result.reward is not None and "reward" in report.metrics:
        most = result.criterion.attainable
        yield f"- Average Reward: {result.reward.text()}" + (f", at most {most:.3g}" if most is not None else "")
        for floor in report.floors:
            if (above := report.above(floor)) is not None:
                yield f'- Average Reward beside "{floor.name}": {above.text()}'
    if result.success is not None and "success_rate" in report.metrics:
        yield f"- Success Rate: {result.success.text('.1%')}, by {result.criterion.text(result.episodes)}"
        rates = pass_rates(result)
        if len(rates) > 1:
            yield f"- All of k samples succeed (pass^k): {', '.join(f'k={k} {every:.1%}' for k, _, every in rates)}"
            yield f"- One of k samples succeeds (pass@k): {', '.join(f'k={k} {some:.1%}' for k, some, _ in rates)}"


def _comparison(report: Report) -> Iterator[str]:
    compared = report.comparison
    if compared is None:
        return
    yield f"- Verdict: {compared.reward.verdict}, by the reward of {count(compared.reward.scenarios, 'scenario')}"
    labels = {"reward": "Average Reward", "success": "Success Rate"}
    for name, before, after, change, form in compared.changes():
        yield f"- {labels[name]}: {before.mean:{form}} to {after.mean:{form}}, {change.text('+' + form)}"


def _left_out(report: Report) -> Iterator[str]:
    if not report.result.episodes:
        yield "no episode could be scored: there is nothing to measure"
        return
    for metric in report.metrics:
        if shown(report.result, metric) is None:
            yield f"{LABELS[metric]} is left out: {why_missing(metric)}"


def _what_happened(report: Report) -> Iterator[str]:
    result = report.result
    counts = result.counts
    if calls := result.tool_calls:
        kinds = ", ".join(f"{number} {kind}" for kind, number in calls.items())
        yield f"{count(sum(calls.values()), 'call')} of tools in {count(len(result.episodes), 'episode')}: {kinds}"
    if counts.truncated:
        yield f"{counts.truncated} of {counts.episodes} episodes were cut by a limit of turns or tokens"
    if result.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.failures.items())
        first = next((e.error for group in result.groups for e in group.failures if e.error), None)
        told = f"; the first error: {first}" if first else ""
        yield f"{sum(result.failures.values())} of {counts.episodes} episodes are in no mean ({kinds}){told}"
    for floor in report.floors:
        yield f"{floor.name}: {floor.about}" if floor.result else f"{floor.name} was not measured: {floor.why_not}"


def _listed(title: str, lines: Iterable[str]) -> list[str]:
    """A section; nothing where it has no lines."""
    found = list(lines)
    return [title, *found] if found else []
