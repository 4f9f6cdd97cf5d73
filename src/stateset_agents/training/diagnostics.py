"""A callback that says how healthy a run is, at any time.

Invariant: its verdict is a function of the measured rows alone, the same one that the closing report uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..tracking.health import Health, assess
from .callbacks import Callback


class DiagnosticsMonitor(Callback):
    """Collects the rows of a run.

    Example:
        monitor = DiagnosticsMonitor()
        await train(agent, environment, callbacks=[monitor])
        print(f"Training health: {monitor.get_health_status().status}")

    Args:
        attainable: the highest reward that an episode can get, if known; thresholds on rewards are shares of it.
    """

    def __init__(self, attainable: float | None = None) -> None:
        self.attainable = attainable
        self.rows: list[dict[str, Any]] = []

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        """Keep the row."""
        self.rows.append(dict(metrics))

    def get_health_status(self) -> Health:
        """Status, signals and issues over all rows so far; UNKNOWN before the first one."""
        return assess(self.rows, self.attainable)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.rows = [dict(row) for row in state["rows"]]
