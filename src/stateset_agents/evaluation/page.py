"""An evaluation as one page that needs nothing beside itself.

Invariant: what a model, a user or a file has written reaches the page as text only: it is escaped, without control
characters, in a page that runs no script and loads nothing, and says so to the browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ..core.tool_calls import spoken
from ..core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from .charts import Row, bar_chart, histogram, strip_chart
from .compare import plain
from .report import Report
from .result import EvaluationResult
from .statistics import Estimate
from .text_report import LABELS, TITLE, length_shares, notes, pass_rates, shown

LARGEST = 2000
"""Conversations that a page holds; beyond, browsers are slow."""


def page(report: Report) -> str:
    """The whole page."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = text(f"{TITLE}: {report.checkpoint}")
    body = [
        *_head(report),
        *_verdict(report),
        *_section("Numbers", _numbers(report)),
        *_section("Reward of each scenario", _rewards(report)),
        *_section("Rewards of all episodes", _histogram(report.result)),
        *_section("Episode length in turns", _lengths(report.result)),
        *_section("Change of each scenario", _changes(report)),
        *_section("Scenarios", _scenarios(report.result)),
        *_section("Conversations", _conversations(report)),
        *_section("Notes", ["<ul>", *(f"<li>{text(note)}</li>" for note in notes(report)), "</ul>"]),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Whatever it is, as text of a page."""
    return escape(plain(str(value)))


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = list(lines)
    return [f"<section>\n<h2>{title}</h2>", *found, "</section>"] if found else []


def _head(report: Report) -> list[str]:
    counted = report.result.counts.episodes
    episodes = f"{counted} of {report.planned} episodes, interrupted" if report.interrupted else f"{counted} episodes"
    step = "" if report.step is None else f", step {report.step}"
    about = f"{text(report.checkpoint)}{step} · {episodes} · {report.result.seconds / 60:.1f} minutes"
    return [f'<header><h1>{TITLE}</h1><p class="quiet">{about}</p></header>']


def _verdict(report: Report) -> Iterator[str]:
    if report.comparison is not None:
        change = report.comparison.reward
        kind = change.verdict if change.verdict in ("better", "worse") else "same"
        compared = text(report.compared_with)
        yield f'<p class="verdict {kind}">Reward compared with {compared}: {text(change.text())}.</p>'


def _numbers(report: Report) -> Iterator[str]:
    result = report.result
    beside: dict[str, EvaluationResult] = dict(report.measured_floors)
    if report.comparison is not None:
        beside[str(report.compared_with)] = report.comparison.before
    heads = ["measure", "this checkpoint", "95 % interval", *beside]
    yield '<div class="wide"><table><thead><tr>'
    yield from (f'<th scope="col">{text(head)}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    intervals = {"reward": _interval(result.reward, ".3f"), "success_rate": _interval(result.success, ".1%")}
    for metric in report.metrics:
        value = shown(result, metric)
        if value is not None:
            others = [shown(other, metric) or "" for other in beside.values()]
            yield _table_row(LABELS[metric], [value, intervals.get(metric, ""), *others])
    if "success_rate" in report.metrics and result.samples > 1:
        blank = [""] * (1 + len(beside))
        for k, some, every in pass_rates(result):
            if k > 1:
                yield _table_row(f"All of {k} succeed (pass^{k})", [f"{every:.1%}", *blank])
                yield _table_row(f"One of {k} succeeds (pass@{k})", [f"{some:.1%}", *blank])
    yield "</tbody></table></div>"


def _table_row(head: str, cells: Sequence[str]) -> str:
    return (
        f'<tr><th scope="row">{text(head)}</th>'
        + "".join(f'<td class="number">{text(c)}</td>' for c in cells)
        + "</tr>"
    )


def _interval(estimate: Estimate | None, form: str) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:{form}} to {estimate.high:{form}}"


def _rewards(report: Report) -> Iterator[str]:
    rows = [
        Row(plain(row.id), report.result.rewards[row.id], row.reward)
        for row in sorted(report.result.by_scenario, key=lambda row: row.reward or 0.0)
        if row.reward is not None
    ]
    if rows:
        marks = {name: one.reward.mean for name, one in report.measured_floors.items() if one.reward is not None}
        yield "<p>A dot is an episode, a bar the mean of a scenario; lowest first.</p>"
        yield strip_chart("Reward of each scenario", rows, marks)


def _histogram(result: EvaluationResult) -> Iterator[str]:
    rewards = [reward for values in result.rewards.values() for reward in values]
    if rewards:
        yield bar_chart("Number of episodes by reward", histogram(rewards), ".0f")


def _lengths(result: EvaluationResult) -> Iterator[str]:
    if shares := length_shares(result):
        yield bar_chart("Share of episodes by number of turns", shares, ".0%")


def _changes(report: Report) -> Iterator[str]:
    if report.comparison is None:
        return
    before = {row.id: row.reward for row in report.comparison.before.by_scenario}
    pairs = [(row.id, row.reward, before.get(row.id)) for row in report.result.by_scenario]
    changed = [(name, now - then) for name, now, then in pairs if now is not None and then is not None]
    rows = [Row(plain(name), [], change) for name, change in sorted(changed, key=lambda pair: pair[1])]
    whole = report.comparison.reward
    yield f"<p>Reward minus that of {text(report.compared_with)}; the first line is the mean with its interval.</p>"
    yield strip_chart(
        "Change of reward", [Row("all scenarios", [], whole.mean, whole.low, whole.high), *rows], {"0": 0.0}
    )


def _scenarios(result: EvaluationResult) -> Iterator[str]:
    yield '<div class="wide"><table><thead><tr>'
    heads = ("scenario", "category", "episodes", "failed", "reward", "success", "turns")
    yield from (f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for place, row in enumerate(result.by_scenario):
        numbers = [
            str(row.episodes),
            str(row.failed),
            *(
                ("" if value is None else f"{value:{form}}")
                for value, form in zip((row.reward, row.success, row.length), (".3f", ".0%", ".1f"), strict=True)
            ),
        ]
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        yield f'<tr><td><a href="#s{place}">{text(row.id)}</a></td><td>{text(row.category)}</td>{cells}</tr>'
    yield "</tbody></table></div>"


def _conversations(report: Report) -> Iterator[str]:
    before: dict[str, TrajectoryGroup] = {}
    if report.comparison is not None:
        before = {group.scenario_id: group for group in report.comparison.before.groups}
    left = LARGEST
    for place, (row, group) in enumerate(zip(report.result.by_scenario, report.result.groups, strict=True)):
        cards = [("", episode) for episode in _episodes(group)]
        if row.id in before:
            cards += [(str(report.compared_with), episode) for episode in _episodes(before[row.id])]
        kept = cards[:left]
        left -= len(kept)
        mean = "not scored" if row.reward is None else f"reward {row.reward:.3f}"
        success = "" if row.success is None else f", success {row.success:.0%}"
        yield f'<details id="s{place}"><summary>{text(row.id)} <span class="quiet">{mean}{success}</span></summary>'
        yield '<div class="group" tabindex="0" role="group" aria-label="samples side by side">'
        yield from (_card(whose, episode) for whose, episode in kept)
        yield "</div>"
        if len(kept) < len(cards):
            yield f"<p>{len(cards) - len(kept)} more conversations are in the JSON results.</p>"
        yield "</details>"


def _episodes(group: TrajectoryGroup) -> list[MultiTurnTrajectory]:
    return sorted((*group.trajectories, *group.failures), key=lambda episode: int(episode.key.rpartition("/")[2] or 0))


def _card(whose: str, episode: MultiTurnTrajectory) -> str:
    sample = episode.key.rpartition("/")[2]
    reward = "not scored" if episode.reward is None else f"reward {episode.reward:.3f}"
    success = {True: '<span class="good">success</span>', False: '<span class="bad">no success</span>', None: ""}
    parts = ", ".join(f"{name} {value:.3f}" for name, value in episode.breakdown.items())
    lines = [
        f"<article><header>{text(whose)} sample {text(sample)}: {reward} {success[episode.success]}</header>",
        f'<p class="quiet">{text(parts)}</p>' if parts else "",
        f'<p class="bad">{text(episode.outcome.value)}: {text(episode.error)}</p>' if episode.error else "",
        *map(_turn, episode.turns),
        "</article>",
    ]
    return "\n".join(line for line in lines if line)


def _turn(turn: ConversationTurn) -> str:
    role = turn.role if turn.role in ("user", "assistant", "tool") else "other"
    if turn.tool_result is not None or role == "tool":
        result = turn.tool_result
        name = "a tool" if result is None else result.name
        ended = "" if result is None or result.ok else " and failed"
        return f"<details><summary>{text(name)} answered{ended}</summary><pre>{text(turn.content)}</pre></details>"
    said = spoken(turn)
    calls = "".join(
        f"<details><summary>called {text(call.name)}</summary><pre>{text(_pretty(call.arguments))}</pre></details>"
        for call in turn.tool_calls
    )
    words = f'<div class="said">{text(said)}</div>' if said.strip() or not calls else ""
    return f'<div class="turn {role}"><div class="role">{text(turn.role)}</div>{words}{calls}</div>'


def _pretty(arguments: Any) -> str:
    return json.dumps(arguments, indent=1, ensure_ascii=False, default=str)
