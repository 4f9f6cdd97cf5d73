"""What the page asks for, as JSON: the same for a browser that asks a server and for an exported folder.

Invariant: an answer has a bounded size, however long the run is, and says so where it left something out (`complete`,
`total`). Asking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..tracking.health import assess
from ..tracking.layout import METRICS, REPORT
from ..tracking.learning import judge
from .answer import Answer
from .conversations import MOST_SAMPLES, GroupName, Wanted
from .lineage import age, attainable
from .metrics import SAMPLED_ROWS, Row, measured, sampled_rows
from .plain_files import read_text
from .runs import Run, RunLibrary

JUDGED_ROWS = 4000
GROUPS_A_PAGE = 50
_MOST_TEXT = 1_000_000


def runs(library: RunLibrary) -> Answer:
    """Every run with how it stands: what the first page shows."""
    return {"folder": library.path.name or str(library.path), "runs": [_line(run) for run in library.runs()]}


def _line(run: Run) -> Answer:
    spark = run.glance()
    row = spark[-1] if spark else {}
    saved = run.checkpoints()
    return {
        "name": run.name,
        "status": run.status(),
        "step": row.get("step", 0),
        "reward": _number(row.get("reward_mean")),
        "success": _number(row.get("success_rate")),
        "evaluated": next((v for r in reversed(spark) if (v := _number(r.get("eval_reward_mean"))) is not None), None),
        "checkpoint": {"step": saved[-1][0], "age": age(saved[-1][1])} if saved else None,
        "spark": [_number(row.get("reward_mean")) for row in spark],
    }


def overview(run: Run) -> Answer:
    """One run: status, verdict, health, what there is to plot."""
    with run.lock:
        complete = run.metrics.update()
        log = run.metrics
        rows = log.read_rows(JUDGED_ROWS) if complete else sampled_rows(run.path / METRICS, SAMPLED_ROWS)
        rewards: Any = log.column("reward_mean") if complete else [_measured(row, "reward_mean") for row in rows]
        losses: Any = log.column("loss") if complete else [_measured(row, "loss") for row in rows]
        keys, count, skipped, share = log.keys, log.rows, log.skipped, log.share
        judged_of = count if complete else None
    evaluated = [
        (_measured(row, "eval_reward_mean"), _measured(row, "eval_reward_low"), _measured(row, "eval_reward_high"))
        for row in rows
        if _number(row.get("eval_reward_mean")) is not None
    ]
    learning = judge(rewards, losses, evaluated)
    most = attainable(run)
    health = assess([measured(row) for row in rows], most, learning=learning)
    status = run.status()
    return {
        "name": run.name,
        "status": status,
        "learning": learning.to_dict(),
        "health": asdict(health) | {"status": str(health.status), "rows": len(rows), "of": judged_of},
        "keys": keys if complete else list(dict.fromkeys(key for row in rows for key in row if key != "step")),
        "rows": count,
        "skipped": skipped,
        "complete": complete,
        "share": share,
        "last": rows[-1] if rows else None,
        "spent": _spent(rows),
        "attainable": most,
        "unreadable": run.unreadable(),
        "resumed_at": status.get("resumed_at", ()),
        "checkpoints": [{"step": step, "age": age(path)} for step, path in run.checkpoints()],
        "report": read_text(run.path / REPORT, _MOST_TEXT),
    }


def step(run: Run, number: int) -> Row | None:
    """Everything that a step measured; None if there is no such step."""
    with run.lock:
        run.metrics.update()
        return run.metrics.read_row(number)


def groups(run: Run, wanted: Wanted, *, start: int = 0, newest_first: bool = False) -> Answer:
    """One page of the groups with a conversation that is wanted."""
    with run.lock:
        complete = run.conversations.update()
        log = run.conversations
        found = list(log.groups(wanted))
        if newest_first:
            found.reverse()
        page = found[start : start + GROUPS_A_PAGE]
        return {
            "total": len(found),
            "start": start,
            "conversations": log.entries,
            "skipped": log.skipped,
            "scenarios": sorted(log.scenarios)[:2000],
            "outcomes": sorted(log.outcomes),
            "complete": complete,
            "share": log.share,
            "groups": [
                {
                    "step": name[0],
                    "phase": name[1],
                    "group": name[2],
                    "scenario": entries[0].scenario,
                    "samples": [
                        {"reward": e.reward, "outcome": e.outcome, "success": e.success, "wanted": wanted.holds(e)}
                        for e in entries[:MOST_SAMPLES]
                    ],
                }
                for name, entries in page
            ],
        }


def group(run: Run, name: GroupName) -> Answer | None:
    """The conversations of a group, word for word, and where its neighbours are; None if there is no such group."""
    with run.lock:
        run.conversations.update()
        conversations = run.conversations.group(name)
        if not conversations:
            return None
        return {"step": name[0], "phase": name[1], "group": name[2], "conversations": conversations}


def version(run: Run) -> Answer:
    """What tells whether anything changed; brings the two logs a little further."""
    with run.lock:
        done = run.metrics.update(0.1)
        read = run.conversations.update(0.1)
        return {
            "metrics": run.metrics.version,
            "conversations": run.conversations.version,
            "rows": run.metrics.rows,
            "complete": done and read,
            "state": run.status()["state"],
            "there": run.path.is_dir(),
        }


def _spent(rows: Iterable[Row]) -> dict[str, float]:
    """Seconds of all rows, by their key."""
    spent: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if key == "seconds" or key.endswith("_seconds"):
                spent[key] = spent.get(key, 0.0) + (_number(value) or 0.0)
    return spent


def _measured(row: Row, key: str) -> float:
    number = _number(row.get(key))
    return float("nan") if number is None else number


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None
