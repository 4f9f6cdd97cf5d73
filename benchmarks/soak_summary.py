"""What `soak.py` makes of its looks at a process: how much of everything it took, and whether that was flat.

What counts as flat stands in `soak.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

SHARE = 0.1
"""Of the calls of a place, for each kind of failure."""
FIRST = 0.9
"""Share of the time that the first run takes."""
WARM = 1 / 12
"""Share of the time after which a process has what it needs."""
QUANTITIES = {"memory": "memory, MB", "descriptors": "file descriptors", "threads": "threads", "tasks": "asyncio tasks"}


def slope(rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> tuple[float, float]:
    """By least squares, an hour, and its standard error; of the medians of ten spans, as looks are not independent."""
    size = max(1, len(rows) // 10)
    spans = [rows[at : at + size] for at in range(0, len(rows) - size + 1, size)]
    hours = [statistics.fmean(row["minute"] for row in span) / 60 for span in spans]
    values = [statistics.median(map(value, span)) for span in spans]
    if len(spans) < 3:
        return 0.0, float("inf")
    line = statistics.linear_regression(hours, values)
    left = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(hours, values, strict=True))
    return line.slope, (left / (len(spans) - 2) / (statistics.pvariance(hours) * len(spans))) ** 0.5


def summary(rows: Sequence[Mapping[str, Any]], minutes: float) -> dict[str, dict[str, float]]:
    """Each quantity: medians of the first minutes after the warm-up, of the middle and of the end, and the slope."""
    warm, last = max(minutes * WARM, 0.5), minutes * FIRST
    second = [row for row in rows if last / 2 < row["minute"] <= last]
    found = {}
    for name in (*QUANTITIES, "rows"):
        seen = [row for row in rows if row[name] is not None]

        def median(begin: float, seen: list[Mapping[str, Any]] = seen, name: str = name) -> float:
            return statistics.median([row[name] for row in seen if begin <= row["minute"] <= begin + warm] or [nan])

        steady = [row for row in second if row[name] is not None]
        hourly, error = slope(steady, lambda row, name=name: row[name])  # type: ignore[misc]
        found[name] = {
            "warm": median(warm),
            "middle": median(last / 2),
            "end": median(last - warm),
            "resumed": median(minutes * 2 / 3 + last / 3),
            "largest": max(row[name] for row in seen),
            "slope": hourly,
            "error": error,
        }
    return found


def problems(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each promise that was not kept."""
    found, taken = [], result["summary"]
    memory = taken["memory"]
    rise = memory["slope"] - taken["rows"]["slope"] - 2 * memory["error"]
    if rise > max(5.0, 0.01 * memory["middle"]):
        found.append(f"memory rises by {memory['slope']:.1f} MB an hour (standard error {memory['error']:.1f})")
    found += [
        f"{QUANTITIES[name]}: {taken[name][place]:.1f} ({place}), {taken[name]['warm']:.1f} at first"
        for name in ("descriptors", "threads", "tasks")
        for place in ("end", "resumed")
        if taken[name][place] > taken[name]["warm"] + 2
    ]
    for kind, (calls, injected) in result["injected"].items():
        if abs(injected - SHARE * calls) > 4 * (SHARE * (1 - SHARE) * calls) ** 0.5:
            found.append(f"{kind}: {injected} of {calls} calls")
    return found
