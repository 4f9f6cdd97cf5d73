"""MLflow.

Invariant: unless a `tracking_uri` is given everything goes into an SQLite file in the run folder, without a server, and
MLflow's own telemetry is off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from .base import import_package, tag

_PARAMS_AT_ONCE = 100  # as MLflow's API has it
_LONGEST_PARAM = 6000


class MlflowSink:
    """A run of an MLflow experiment.

    Args:
        experiment: made if there is none of that name.
        tracking_uri: as MLflow has it; None: the file `mlflow.db` in the run folder.
    """

    name = "mlflow"
    rewinds = False

    def __init__(self, experiment: str, tracking_uri: str | None = None) -> None:
        self.experiment = experiment
        self.tracking_uri = tracking_uri
        self._before: Mapping[str, Any] = {}
        self._run_id: str | None = None
        self._client: Any = None

    def check(self) -> None:
        """The packages are there; see `MetricsSink.check`."""
        self._package()

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Begin or take up a run; see `MetricsSink.start`."""
        package = self._package()
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        home = folder.resolve()
        try:
            self._client = package.MlflowClient(self.tracking_uri or f"sqlite:///{home / 'mlflow.db'}")
            if self._before.get("run") and self._before.get("uri") == self.tracking_uri:
                self._run_id = str(self._before["run"])
                self._client.update_run(self._run_id, status="RUNNING")
            else:
                self._begin(home, config)
        except Exception as error:
            raise ConfigError(
                f"mlflow did not start: {error}\n  look at logging.mlflow.tracking_uri, or leave out logging.mlflow"
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step; see `MetricsSink.log`."""
        metric = self._entities().Metric
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[metric(tag(key), value, now, step) for key, value in metrics.items()]
        )

    def close(self, *, failed: bool) -> None:
        """Mark the run as ended; see `MetricsSink.close`."""
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")

    def state_dict(self) -> dict[str, Any]:
        """The id of the run, and where it is."""
        return {"run": self._run_id, "uri": self.tracking_uri}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the run of that id, if it is in the same place."""
        self._before = dict(state)

    def _begin(self, home: Path, config: Mapping[str, Any]) -> None:
        known = self._client.get_experiment_by_name(self.experiment)
        artifacts = None if self.tracking_uri else (home / "mlflow-artifacts").as_uri()
        experiment = (
            self._client.create_experiment(self.experiment, artifact_location=artifacts)
            if known is None
            else known.experiment_id
        )
        self._run_id = self._client.create_run(experiment, run_name=home.name).info.run_id
        param = self._entities().Param
        params = [param(key, value[:_LONGEST_PARAM]) for key, value in _flat("", config)]
        for begin in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[begin : begin + _PARAMS_AT_ONCE])

    def _package(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if self.tracking_uri is None:  # a server's clients can do without
            import_package("sqlalchemy", extra="mlflow", key="logging.mlflow")
        import_package("mlflow", extra="mlflow", key="logging.mlflow")
        return import_package("mlflow.tracking", extra="mlflow", key="logging.mlflow")

    @staticmethod
    def _entities() -> Any:
        return import_package("mlflow.entities", extra="mlflow", key="logging.mlflow")


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    """A nested config as dotted keys and texts."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    elif value is not None:
        yield prefix, str(value)
