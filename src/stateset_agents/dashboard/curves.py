"""Numbers over a run, as many as a screen has.

Invariant: no extreme of a run whose log was read is lost (`buckets.py`), and while a long log is still being read the
answer says so (`complete`): it is drawn from a sample of its steps then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tracking.layout import METRICS
from ..tracking.learning import t_quantile
from .answer import Answer
from .buckets import Buckets, plain
from .metrics import SAMPLED_ROWS, MetricLog, sampled_rows
from .runs import Run

MOST_POINTS = 4000


def series(
    run: Run, keys: Sequence[str], *, first: int | None = None, last: int | None = None, points: int = 600
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
