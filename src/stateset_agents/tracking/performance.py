"""Where the time of a run went, and how much memory it took, as lines for its report.

Invariant: the parts of a step are disjoint and add up to all of it. What conversations wait for overlaps, and is told
apart from that: each as its own share of the seconds in which conversations were played.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLOCKED = (
    "seconds",
    "rollout_seconds",
    "generate_seconds",
    "environment_seconds",
    "reward_seconds",
    "train_seconds",
    "eval_seconds",
    "save_seconds",
    "other_seconds",
    "tokens_per_second",
    "memory_mb",
    "gpu_memory_mb",
)
"""Keys of `metrics.jsonl` that a clock or the machine decides: two equal runs differ in them."""

_PARTS = {
    "rollout_seconds": "conversations",
    "train_seconds": "learning",
    "eval_seconds": "evaluation",
    "save_seconds": "saving",
    "other_seconds": "the rest",
}
_WAITED_FOR = {"generate_seconds": "the model", "environment_seconds": "the environment", "reward_seconds": "rewards"}


def performance_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Up to three lines; none for rows without times."""
    whole = {key: _sum(rows, key) for key in (*_PARTS, *_WAITED_FOR)}
    total = sum(whole[key] for key in _PARTS)
    lines = []
    if rows and total > 0:
        parts = ", ".join(f"{name} {whole[key] / total:.0%}" for key, name in _PARTS.items() if whole[key] > 0)
        lines.append(f"Time of a step: {total / len(rows):.2f} s in the mean: {parts}.")
    rollout = whole["rollout_seconds"]
    if rollout > 0 and any(whole[key] for key in _WAITED_FOR):
        waited = ", ".join(f"{name} {whole[key] / rollout:.0%}" for key, name in _WAITED_FOR.items())
        lines.append(f"Time in conversations: at least one of them was waiting for {waited} (these overlap).")
    memory = [f"{max(found):.0f} MB{of}" for key, of in _MEMORY.items() if (found := _values(rows, key))]
    if memory:
        lines.append(f"Memory at most: {', '.join(memory)}.")
    return lines


_MEMORY = {"memory_mb": "", "gpu_memory_mb": " on the GPU"}


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(_values(rows, key))
