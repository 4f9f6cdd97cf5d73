"""The alerts of a run, as one of its watchers.

Invariant: they see what `metrics.jsonl` sees, and their state is saved with the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.alerts import AlertsSection
from ..core.errors import ConfigError
from ..tracking.alerts import Alerts
from ..tracking.layout import LOCK, OWN_NAMES
from ..tracking.run_folder import read_metrics
from .callbacks import Callback
from .run import Run


def alerts_of(run: Run) -> Alerts | None:
    """The alerts that a run's config asks for, or the call that made it; None where none are asked for."""
    if run.folder is None:
        return None
    if run.alerts is not None:
        return Alerts(run.alerts.rules, run.alerts, run.folder, attainable=run.reward.attainable)
    if run.source is None:
        return None
    rules, section = run.source.alerts, run.source.logging.alerts
    if not rules and section is None:
        return None
    return Alerts(rules, section or AlertsSection(), run.folder, attainable=run.reward.attainable)


def require_alerts(run: Run) -> None:
    """Refuse alerts that could not be told.

    Raises:
        ConfigError: see `Alerts.check`; or there is no folder for them.
    """
    if run.alerts is not None and run.folder is None:
        raise ConfigError("alerts are kept in the run folder, and there is none: give output_dir")
    alerts = alerts_of(run)
    if alerts is None:
        return
    try:
        alerts.check((*OWN_NAMES, LOCK, *([run.log_file] if run.log_file else [])))
    except ConfigError as error:
        key = "logging.alerts.webhook_env" if "webhook_env" in str(error) else "logging.alerts.file"
        raise ConfigError(run.located(key, str(error))) from error


class AlertWatch(Callback):
    """Shows the alerts each row."""

    def __init__(self, alerts: Alerts, folder: Path) -> None:
        self._alerts, self._folder = alerts, folder

    def on_run_start(self, total_steps: int, start_step: int) -> None:
        """Remember the rows of an earlier part of the run."""
        self._alerts.start(read_metrics(self._folder))

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        """Look at the row."""
        self._alerts.after(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Where each rule stands."""
        return self._alerts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._alerts.load_state_dict(state)
