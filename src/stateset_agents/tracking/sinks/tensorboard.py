"""TensorBoard.

Invariant: TensorBoard shows each step once. When a run goes on, the event file says which steps are to be forgotten.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from .base import import_package, tag


class TensorBoardSink:
    """Event files for TensorBoard, written by tensorboardX: no TensorFlow, no server.

    Args:
        log_dir: taken as it is, not inside the run folder.
    """

    name = "tensorboard"
    rewinds = True

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = Path(log_dir)
        self._writer: Any = None
        self._goes_on = False

    def check(self) -> None:
        """The package is there; see `MetricsSink.check`."""
        self._package()

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Open an event file; see `MetricsSink.start`."""
        tensorboard = self._package()
        purge = start_step + 1 if start_step or self._goes_on else None
        try:
            # Two parts of a run within one second would have one file, and the first part's events would be gone.
            suffix = f".{secrets.token_hex(3)}"
            self._writer = tensorboard.SummaryWriter(
                logdir=str(self.log_dir), purge_step=purge, flush_secs=10, filename_suffix=suffix
            )
        except OSError as error:
            raise ConfigError(
                f'logging.tensorboard.log_dir is "{self.log_dir}", which cannot be written ({error.strerror})'
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step; see `MetricsSink.log`."""
        for key, value in metrics.items():
            self._writer.add_scalar(tag(key), value, step)

    def close(self, *, failed: bool) -> None:
        """Close the file; see `MetricsSink.close`."""
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the steps are in the events."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Events of an earlier part are there, perhaps of steps that are done again."""
        self._goes_on = True

    @staticmethod
    def _package() -> Any:
        return import_package("tensorboardX", extra="tensorboard", key="logging.tensorboard")
