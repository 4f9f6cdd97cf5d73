"""Other places that may show a run's metrics: Weights & Biases, TensorBoard.

Invariant: the run folder is the truth and a sink is a copy. What is wrong at the start (a missing package, no login) is
said before any work is done; whatever a sink raises after that is logged once, counted, and never stops training.
Nothing but the metrics and the redacted config is sent: no conversation, no code, no weights.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import ConfigError
from .redaction import redact_config

log = logging.getLogger(__name__)


class MetricsSink(Protocol):
    """One place to copy metrics to."""

    name: str
    """Shown in messages."""

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Connect. Rows that an earlier part of the run sent for steps after `start_step` are void.

        Raises:
            ConfigError: this sink cannot be used as it is configured; says what to install or to set.
        """
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step's finite numbers; `step` is not among them."""
        ...

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same record; JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the record of an earlier part of the run; called before `start`."""
        ...


class Sinks:
    """All sinks of a run behind one call each, with the invariant of this module.

    Attributes:
        failures: how often each sink has raised since it was started, by name.
    """

    def __init__(self, sinks: Sequence[MetricsSink] = ()) -> None:
        self.sinks = tuple(sinks)
        self.failures = {sink.name: 0 for sink in self.sinks}
        self._open: list[MetricsSink] = []

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int = 0) -> None:
        """Connect all of them.

        Args:
            folder: the run folder.
            config: the resolved configuration; secrets are taken out here.
            start_step: steps that are done already, on resume.

        Raises:
            ConfigError: one of them cannot be used; those before it are closed again.
        """
        clean = redact_config(config)
        for sink in self.sinks:
            try:
                sink.start(folder, clean, start_step)
            except BaseException:
                self.close(failed=True)
                raise
            self._open.append(sink)

    def log(self, row: Mapping[str, Any]) -> None:
        """Copy one row of `metrics.jsonl`: its finite numbers, under their step."""
        step = int(row["step"])
        numbers = {key: float(value) for key, value in row.items() if key != "step" and _is_number(value)}
        for sink in self.sinks:
            self._guard(sink, lambda sink: sink.log(step, numbers))

    def close(self, *, failed: bool = False) -> None:
        """Send what is left, and say how many rows did not arrive. What was not started has nothing to send."""
        opened, self._open = self._open, []
        for sink in opened:
            self._guard(sink, lambda sink: sink.close(failed=failed))
            if self.failures[sink.name]:
                log.warning("%s failed %d times; metrics.jsonl has every row", sink.name, self.failures[sink.name])

    def state_dict(self) -> dict[str, Any]:
        """The state of each sink, by name."""
        return {sink.name: sink.state_dict() for sink in self.sinks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up each sink's state; one that the earlier part of the run did not have begins afresh."""
        for sink in self.sinks:
            if sink.name in state:
                sink.load_state_dict(state[sink.name])

    def _guard(self, sink: MetricsSink, call: Any) -> None:
        try:
            call(sink)
        except Exception as error:
            self.failures[sink.name] += 1
            if self.failures[sink.name] == 1:
                log.warning("%s failed, training goes on: %r", sink.name, error, exc_info=True)


class WandbSink:
    """Weights & Biases. `WANDB_MODE=offline` writes into the run folder and needs no network.

    A resumed run goes on in the same record, with the step as its x axis, so that no row is dropped.
    """

    name = "wandb"

    def __init__(self, project: str, entity: str | None = None, tags: Sequence[str] = ()) -> None:
        self.project = project
        self.entity = entity
        self.tags = tuple(tags)
        self._id: str | None = None
        self._run: Any = None

    @staticmethod
    def check() -> Any:
        """Import the package.

        Raises:
            ConfigError: it is not installed.
        """
        return _import("wandb", extra="wandb", key="logging.wandb")

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Begin or take up a record; see `MetricsSink.start`."""
        wandb = self.check()
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
        self._run.log({"train/step": step} | {_tag(key): value for key, value in metrics.items()})

    def close(self, *, failed: bool) -> None:
        """Send what is left; see `MetricsSink.close`."""
        self._run.finish(exit_code=1 if failed else 0)

    def state_dict(self) -> dict[str, Any]:
        """The id of the record."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the record of that id."""
        self._id = state.get("id")


class TensorBoardSink:
    """Event files for TensorBoard, written by tensorboardX: no TensorFlow, no server.

    On resume, TensorBoard is told to forget the steps after the checkpoint.
    """

    name = "tensorboard"

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = Path(log_dir)
        self._writer: Any = None

    @staticmethod
    def check() -> Any:
        """Import the package.

        Raises:
            ConfigError: it is not installed.
        """
        return _import("tensorboardX", extra="tensorboard", key="logging.tensorboard")

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Open an event file; see `MetricsSink.start`. `log_dir` is taken as it is, not inside `folder`."""
        tensorboard = self.check()
        purge = start_step + 1 if start_step else None
        try:
            self._writer = tensorboard.SummaryWriter(logdir=str(self.log_dir), purge_step=purge, flush_secs=10)
        except OSError as error:
            raise ConfigError(
                f'logging.tensorboard.log_dir is "{self.log_dir}", which cannot be written ({error.strerror})'
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step; see `MetricsSink.log`."""
        for key, value in metrics.items():
            self._writer.add_scalar(_tag(key), value, step)

    def close(self, *, failed: bool) -> None:
        """Close the file; see `MetricsSink.close`."""
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the steps are in the events."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


def _import(module: str, *, extra: str, key: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{key} needs the package {module}, which is not installed.\n"
            f'  pip install "grpo-agent-framework[{extra}]", or leave {key} out'
        ) from error


def _tag(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
