"""What the page asks for, as JSON: the same for a browser that asks a server and for an exported folder.

Invariant: an answer has a bounded size, however long the run is, and says so where it left something out (`complete`,
`total`). Asking changes nothing.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.manifest import Manifest
from ..core.errors import CheckpointError
from ..core.yaml_strict import YamlProblem, parse_yaml
from ..tracking.health import assess
from ..tracking.learning import judge, t_quantile
from ..tracking.redaction import redact_config
from ..tracking.run_folder import CONFIG, METRICS, ORIGINS, REPORT
from .buckets import Buckets, plain
from .conversations import GroupName, Wanted
from .metrics import MetricLog, Row, last_row, parse, sampled_rows
from .runs import Run, RunLibrary

Answer = dict[str, Any]

MOST_POINTS = 4000
SAMPLED_ROWS = 1200
"""Rows that are looked at while a long log is still being read."""
JUDGED_ROWS = 4000
SPARK_POINTS = 60
GROUPS_A_PAGE = 50
_MOST_TEXT = 1_000_000


def runs(library: RunLibrary) -> Answer:
    """Every run with how it stands: what the first page shows."""
    return {"folder": library.path.name or str(library.path), "runs": [_line(run) for run in library.runs()]}


def _line(run: Run) -> Answer:
    row = last_row(run.path / METRICS) or {}
    spark = sampled_rows(run.path / METRICS, SPARK_POINTS)
    saved = run.checkpoints()
    return {
        "name": run.name,
        "status": run.status(),
        "step": row.get("step", 0),
        "reward": _number(row.get("reward_mean")),
        "success": _number(row.get("success_rate")),
        "evaluated": next((v for r in reversed(spark) if (v := _number(r.get("eval_reward_mean"))) is not None), None),
        "checkpoint": {"step": saved[-1][0], "age": _age(saved[-1][1])} if saved else None,
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
    health = assess(rows, learning=learning)
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
        "resumed_at": [at for at in _list(status.get("resumed_at")) if type(at) is int],
        "checkpoints": [{"step": step, "age": _age(path)} for step, path in run.checkpoints()],
        "report": _text(run, REPORT),
    }


def series(
    run: Run, keys: list[str], *, first: int | None = None, last: int | None = None, points: int = 600
) -> Answer:
    """Numbers over the run, as many as a screen has.

    Args:
        run: whose.
        keys: of `metrics.jsonl`.
        first, last: steps to show, both included; None is the end of the run.
        points: at most so many.

    Returns:
        For each point the last `step` that it stands for, the `tokens` that were sampled and the `hours` of work up to
        it; under `series` for each key its `mean`, with `low` and `high` where a point stands for several steps; under
        `trend` the same for the first key: a running mean and its 95 % interval over steps.
    """
    with run.lock:
        complete = run.metrics.update()
        log = run.metrics if complete else MetricLog.of(sampled_rows(run.path / METRICS, SAMPLED_ROWS))
        begin = 0 if first is None else int(np.searchsorted(log.steps, first, "left"))
        end = log.rows if last is None else int(np.searchsorted(log.steps, last, "right"))
        part = slice(begin, max(begin, end))
        buckets = Buckets.of(max(0, end - begin), min(points, MOST_POINTS))
        found = {key: _points(buckets, log.column(key)[part]) for key in keys if key in log.keys}
        trend = _trend(log.column(keys[0])) if keys and keys[0] in found else None
        return {
            "step": [int(step) for step in buckets.last(log.steps[part])],
            "tokens": plain(buckets.last(_sum(log, "sampled_tokens")[part]), 9),
            "hours": plain(buckets.last(_sum(log, "seconds")[part] / 3600), 9),
            "series": found,
            "trend": {name: plain(buckets.last(one[part])) for name, one in trend.items()} if trend else None,
            "evaluations": _evaluations(log, part),
            "rows": max(0, end - begin),
            "complete": complete,
            "share": run.metrics.share,
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
                        for e in entries
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


def config(run: Run) -> Answer:
    """The resolved config: its text, and each value by its dotted name with where it came from."""
    text = _text(run, CONFIG)
    if text is None:
        return {"text": None, "values": {}, "problem": f"{CONFIG} is missing"}
    try:
        data = parse_yaml(text).data
    except YamlProblem as problem:
        return {"text": None, "values": {}, "problem": f"{CONFIG}, line {problem.line}: {problem}"}
    if not isinstance(data, dict):
        return {"text": None, "values": {}, "problem": f"{CONFIG} holds no config"}
    return {"values": _flat(redact_config(data)), "origins": _origins(run), "problem": None}


def checkpoints(run: Run) -> Answer:
    """Every checkpoint by what its manifest says; its files are not looked at."""
    return {"checkpoints": [_checkpoint(number, path) for number, path in reversed(run.checkpoints())]}


def verify(run: Run, number: int) -> Answer | None:
    """Compare every file of a checkpoint with what was written; None if there is no such checkpoint."""
    path = dict(run.checkpoints()).get(number)
    if path is None:
        return None
    begin = time.monotonic()
    try:
        Manifest.read(path).verify(path)
    except (CheckpointError, OSError) as error:
        return {"step": number, "good": False, "problem": str(error).replace(str(run.path), "."), "seconds": None}
    return {"step": number, "good": True, "problem": None, "seconds": round(time.monotonic() - begin, 3)}


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
        }


def _checkpoint(number: int, path: Path) -> Answer:
    try:
        manifest = Manifest.read(path)
    except (CheckpointError, OSError) as error:
        return {"step": number, "problem": str(error).replace(str(path), path.name), "age": _age(path)}
    return {
        "step": number,
        "problem": None,
        "age": _age(path),
        "bytes": manifest.size,
        "files": len(manifest.files),
        "created": manifest.created,
        "versions": manifest.versions,
    }


def _sum(log: MetricLog, key: str) -> NDArray[np.float64]:
    """Up to and with each step."""
    return np.cumsum(np.nan_to_num(log.column(key).astype(np.float64)))


def _evaluations(log: MetricLog, part: slice) -> Answer:
    """The steps after which the agent was evaluated, and what came of it; evenly fewer where there are too many."""
    places = np.flatnonzero(np.isfinite(log.column("eval_reward_mean")[part])) + part.start
    places = places[:: max(1, -(-len(places) // MOST_POINTS))]
    keys = ("eval_reward_mean", "eval_reward_low", "eval_reward_high", "eval_success_rate")
    return {"step": log.steps[places].tolist()} | {key: plain(log.column(key)[places]) for key in keys}


def _points(buckets: Buckets, column: Any) -> Answer:
    found = {"mean": plain(buckets.mean(column))}
    if buckets.size > 1:
        found |= {"low": plain(buckets.low(column)), "high": plain(buckets.high(column))}
    return found


def _trend(column: Any) -> dict[str, NDArray[np.float64]]:
    """Mean over a window of steps around each step, and its 95 % interval; a tenth of the run, at least 5 steps."""
    values = np.asarray(column, np.float64)
    window = max(5, len(values) // 10)
    there = np.isfinite(values)
    clean = np.where(there, values, 0.0)
    sums = [np.concatenate([[0.0], np.cumsum(one)]) for one in (there, clean, clean**2)]
    centre = np.arange(len(values))
    begin = np.maximum(0, centre - window // 2)
    end = np.minimum(len(values), centre + window // 2 + 1)
    count, total, squares = (one[end] - one[begin] for one in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
        variance = np.maximum(0.0, squares / count - mean**2) * count / (count - 1)
        half = np.where(count > 2, t_quantile(count - 1) * np.sqrt(variance / count), np.nan)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every value by its dotted name; lists of plain values stay together."""
    if isinstance(value, dict) and value:
        inner = value.items()
        return dict(
            itertools.chain.from_iterable(_flat(v, f"{path}.{k}" if path else str(k)).items() for k, v in inner)
        )
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return dict(itertools.chain.from_iterable(_flat(item, f"{path}[{i}]").items() for i, item in enumerate(value)))
    return {path: value}


def _origins(run: Run) -> dict[str, str]:
    """Where each value was written, as far as the run noted it."""
    found = parse((_text(run, ORIGINS) or "").encode("utf-8", "replace")) or {}
    return {key: str(value) for key, value in found.items()}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _text(run: Run, name: str) -> str | None:
    try:
        with (run.path / name).open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_TEXT)
    except OSError:
        return None


def _age(path: Path) -> float | None:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None


def _measured(row: Row, key: str) -> float:
    number = _number(row.get(key))
    return float("nan") if number is None else number


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None
