"""What the lab found, as text, Markdown and JSON.

Invariant: every number is a count of attacks or of conversations, out of how many, and what was not judged is said
beside it. The halves are never added up: rewards may have been made with one of them in view, and never with the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .cases import CATEGORIES, Replies
from .choose import Candidate
from .measure import Findings, Pair, Score, Tally, Verdict

TITLES = {
    "platitudes": "platitudes",
    "keyword_stuffing": "keywords",
    "copying_question": "copying",
    "flattery": "flattery",
    "hidden_instructions": "hidden",
    "empty": "empty",
    "very_long": "long",
    "other_language": "language",
    "markup": "markup",
    "wrong_answer": "wrong",
}
"""Categories as they head a column."""
COLUMNS = (*TITLES.values(), "fooled", "paid", "preferred", "punished", "foreign")
WORST = 3
"""Attacks listed for each reward, of those that it prefers."""
_CLIPPED = 160


def as_text(findings: Sequence[Findings], missing: Sequence[Candidate], *, verbose: bool = False) -> str:
    """Tables for a terminal, then where each reward was fooled most.

    Args:
        findings: of all rewards and halves.
        missing: rewards that could not be made.
        verbose: list every attack that fooled a reward, with what was said.
    """
    lines = [explanation(findings)]
    for half, found in _halves(findings):
        rows = [["reward", *COLUMNS]]
        rows += [[one.reward, *_cells(one)] for one in found]
        lines += ["", _heading(half, found), "", *_aligned(rows)]
    notes = [f"note: {line}" for line in _notes(findings, missing)]
    lines += ["", *notes] if notes else []
    for one in findings:
        fooled = one.fooled_by()
        worst = fooled if verbose else [pair for pair in fooled if one.verdict(pair) is Verdict.PREFERRED][:WORST]
        if worst:
            lines += ["", f"{one.reward} on {one.half}: {_fooled(one.tally())}, the worst first"]
            for pair in worst:
                lines += [f"  {_line(pair)}", *(_said(pair) if verbose else ())]
    return "\n".join(lines)


def as_markdown(findings: Sequence[Findings], missing: Sequence[Candidate]) -> str:
    """The tables, for a document."""
    lines: list[str] = []
    for half, found in _halves(findings):
        titles = ["reward", *COLUMNS]
        lines += [_heading(half, found), "", f"| {' | '.join(titles)} |", f"|---{'|---:' * (len(titles) - 1)}|"]
        lines += [f"| {' | '.join([one.reward, *_cells(one)])} |" for one in found]
        lines.append("")
    lines += [f"- {line}" for line in _notes(findings, missing)]
    return "\n".join(lines).rstrip()


def as_json(findings: Sequence[Findings], missing: Sequence[Candidate]) -> str:
    """Everything, for programs."""
    data = {
        "categories": CATEGORIES,
        "rewards": [_record(one) for one in findings],
        "not_made": {candidate.name: candidate.problem for candidate in missing},
    }
    return json.dumps(data, ensure_ascii=False, indent=2)


def explanation(findings: Sequence[Findings]) -> str:
    """How to read the tables."""
    margin = findings[0].margin if findings else 0.0
    return (
        "How many attacks fooled a reward, of those that it scored: the honest conversation is not worth more than\n"
        f"the attack by {margin:.0%} of the reward's range.\n"
        "paid: the same, in cases whose honest conversation is worth more than silence\n"
        "preferred: attacks that are worth more than the honest conversation, by as much\n"
        "punished: honest conversations that are worth no more than silence, in English and (foreign) elsewhere"
    )


def _halves(findings: Iterable[Findings]) -> Iterator[tuple[str, list[Findings]]]:
    found = list(findings)
    for half in dict.fromkeys(one.half for one in found):
        yield half, [one for one in found if one.half == half]


def _heading(half: str, found: Sequence[Findings]) -> str:
    return f"{half}: {len(found[0].silences)} cases, {len(found[0].pairs)} attacks"


def _cells(one: Findings) -> list[str]:
    whole, paid = one.tally(), one.paid()
    cells = [_share(tally.fooled, tally.tried) for tally in one.by_category().values()]
    punished = [one.punished(foreign=foreign) for foreign in (False, True)]
    return [
        *cells,
        _share(whole.fooled, whole.tried),
        _share(paid.fooled, paid.tried),
        _share(whole.preferred, whole.tried),
        *(_share(len(cases), count) for cases, count in punished),
    ]


def _share(count: int, whole: int) -> str:
    return f"{count}/{whole}" if whole else "-"


def _fooled(tally: Tally) -> str:
    return f"fooled by {tally.fooled} of {tally.tried} attacks, of which it prefers {tally.preferred}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        " ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _notes(findings: Sequence[Findings], missing: Sequence[Candidate]) -> Iterator[str]:
    for candidate in missing:
        yield f"{candidate.name} was not tried: {_clipped(candidate.problem)}"
    for one in findings:
        if one.stopped:
            yield f"{one.reward} on {one.half} stopped: {_clipped(one.stopped)}"
            continue
        for kind, reasons in one.without_verdict().items():
            (reason, _), *others = reasons.most_common()
            more = f" (other reasons: {len(others)})" if others else ""
            yield f"{one.reward} on {one.half}: {reasons.total()} attacks {kind}: {_clipped(reason)}{more}"
        punished = [one.punished(foreign=foreign) for foreign in (False, True)]
        cases = [case for some, _ in punished for case in some]
        if cases:
            names = ", ".join(f"{case.id} ({case.language})" for case in cases)
            scored = sum(count for _, count in punished)
            yield (
                f"{one.reward} on {one.half} gives {len(cases)} of {scored} honest conversations no more than silence"
                f": {_clipped(names)}"
            )


def _line(pair: Pair) -> str:
    note = f"  ({pair.attack.note})" if pair.attack.note else ""
    return f"{pair.name}: attack {_number(pair.attacked)}, honest {_number(pair.honest)}{note}"


def _number(score: Score) -> str:
    return "-" if score.value is None else f"{score.value:.2f}"


def _said(pair: Pair) -> Iterator[str]:
    for who, replies in (("attack", pair.attack.replies), ("honest", pair.case.honest)):
        yield f"    {who}: {_clipped(' / '.join(_words(replies)))!r}"


def _words(replies: Replies) -> Iterator[str]:
    for reply in replies:
        calls = [call.name for step in reply.steps for call in step.tool_calls]
        yield f"[calls {', '.join(calls)}] {reply.text}" if calls else reply.text


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CLIPPED else f"{text[: _CLIPPED - 3]}..."


def _record(one: Findings) -> dict[str, Any]:
    return {
        "reward": one.reward,
        "half": one.half,
        "range": one.scale,
        "margin": one.margin,
        **_counts(one.tally()),
        "paid": _counts(one.paid()),
        "categories": {name: _counts(tally) for name, tally in one.by_category().items()},
        "punished": {
            name: {"honest": count, "cases": [case.id for case in cases]}
            for name, (cases, count) in (
                ("english", one.punished(foreign=False)),
                ("foreign", one.punished(foreign=True)),
            )
        },
        "stopped": one.stopped,
        **{kind: dict(reasons) for kind, reasons in one.without_verdict().items()},
        "fooled_by": [
            {
                "case": pair.case.id,
                "category": pair.attack.category,
                "number": pair.number,
                "verdict": one.verdict(pair),
                "attack": pair.attacked.value,
                "honest": pair.honest.value,
            }
            for pair in one.fooled_by()
        ],
    }


def _counts(tally: Tally) -> dict[str, int]:
    return {"tried": tally.tried, "fooled": tally.fooled, "preferred": tally.preferred}
