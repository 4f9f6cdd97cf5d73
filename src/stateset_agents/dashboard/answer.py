"""An answer to the page, and how it is written down.

Invariant: whatever a run folder holds, an answer is strict JSON.
"""

from __future__ import annotations

from typing import Any

from ..tracking.jsonl import to_line

Answer = dict[str, Any]

_DEEPEST = 40


def to_json(answer: Answer) -> bytes:
    """One line of JSON. What is nested deeper than anybody reads is left out where it could not be written."""
    try:
        return to_line(answer)
    except RecursionError:
        return to_line(_shallow(answer, _DEEPEST))


def _shallow(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return "…"
    if isinstance(value, dict):
        return {key: _shallow(item, levels - 1) for key, item in value.items()}
    return [_shallow(item, levels - 1) for item in value]
