"""Weights & Biases.

Invariant: it gets the metrics and the redacted config: no code, no weights, nothing of the terminal. Conversations it
gets only where `samples` asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from .base import COLUMNS, import_package, tag


class WandbSink:
    """A record of Weights & Biases. `WANDB_MODE=offline` writes into the run folder and needs no network.

    A resumed run goes on in the same record, with the step as its x axis, so that no row is dropped.

    Args:
        project, entity, tags: where to, and under which labels.
        samples: conversations of each step that go out as a table.
    """

    name = "wandb"
    rewinds = False

    def __init__(self, project: str, entity: str | None = None, tags: Sequence[str] = (), samples: int = 0) -> None:
        self.project = project
        self.entity = entity
        self.tags = tuple(tags)
        self.samples = samples
        self._id: str | None = None
        self._run: Any = None

    def check(self) -> None:
        """The package is there; see `MetricsSink.check`."""
        self._package()

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Begin or take up a record; see `MetricsSink.start`."""
        wandb = self._package()
        try:
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                tags=list(self.tags),
                name=folder.resolve().name,
                dir=str(folder),
                config=dict(config),
                id=self._id,
                resume="allow",
                # The terminal shows conversations, and those stay here.
                settings=wandb.Settings(console="off", disable_git=True, save_code=False),
            )
            self._run.define_metric("train/step")
            self._run.define_metric("*", step_metric="train/step")
        except Exception as error:
            raise ConfigError(
                f"wandb did not start: {error}\n"
                "  log in with `wandb login`, or set WANDB_MODE=offline, or leave out --wandb-project (logging.wandb)"
            ) from error
        self._id = self._run.id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step; see `MetricsSink.log`."""
        self._run.log({"train/step": step} | {tag(key): value for key, value in metrics.items()})

    def log_samples(self, step: int, rows: Sequence[Sequence[object]]) -> None:
        """Copy conversations as a table; see `SamplesSink.log_samples`."""
        table = self._package().Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({"train/step": step, "samples": table})

    def close(self, *, failed: bool) -> None:
        """Send what is left; see `MetricsSink.close`."""
        self._run.finish(exit_code=1 if failed else 0)

    def state_dict(self) -> dict[str, Any]:
        """The id of the record."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the record of that id."""
        self._id = state.get("id")

    @staticmethod
    def _package() -> Any:
        return import_package("wandb", extra="wandb", key="logging.wandb")
