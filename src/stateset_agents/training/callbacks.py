"""What may watch a run.

Invariant: whatever a callback remembers is in its `state_dict`, so that it survives a restart. A callback that raises
stops the run: it is the user's own code, and silence would hide its error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..evaluation import EvaluationResult


class Callback:
    """Override what you need; every hook may be left out.

    Attributes:
        name: under which the state is kept in checkpoints; two callbacks of one run need different names.
    """

    @property
    def name(self) -> str:
        """The class's name, unless a subclass says otherwise."""
        return type(self).__name__

    def on_run_start(self, total_steps: int, start_step: int) -> None:
        """Before the first step; `start_step` steps were done by an earlier part of the run."""

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        """After each step, with its row of `metrics.jsonl`."""

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """After each evaluation; step 0 is the one before training."""

    def on_run_end(self, metrics: list[Mapping[str, Any]]) -> None:
        """After the last step, with all rows."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, as JSON."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
