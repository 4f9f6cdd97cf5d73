"""What a run may have beside the agent, the environment and the reward.

Invariant: whatever is left out is not missed: a run without a folder keeps everything in memory, one without progress
is silent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.environment import Environment
from ..core.errors import ConfigError
from ..core.records import Record
from ..tracking.logging_setup import FILE_ONLY
from ..tracking.progress import LoggedProgress, Progress
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import Sinks
from .callbacks import Callback

log = logging.getLogger(__name__)


@dataclass
class RunParts:
    """What a run may have.

    Attributes:
        folder: where metrics, conversations and checkpoints go; None keeps them in memory only.
        evaluation: environment whose scenarios are evaluated; None evaluates on the training scenarios.
        callbacks: watchers.
        progress: what the user sees.
        sinks: where metrics are copied to.
        records: more JSON for checkpoints, by stem.
        data: what `data_file` holds, for a run that learns from a file; None reads it.
    """

    folder: RunFolder | None = None
    evaluation: Environment | None = None
    callbacks: Sequence[Callback] = ()
    progress: Progress | None = None
    sinks: Sinks = field(default_factory=Sinks)
    records: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Record] | None = None

    def require_callbacks(self) -> None:
        """Refuse what cannot watch a run.

        Raises:
            ConfigError: something is no callback, or two callbacks have the same name.
        """
        for place, callback in enumerate(self.callbacks):
            if not isinstance(callback, Callback):
                raise ConfigError(
                    f"callbacks[{place}] is {callback!r}; it must be an instance of a subclass of Callback, "
                    "for example DiagnosticsMonitor()"
                )
        names = [callback.name for callback in self.callbacks]
        if len(set(names)) != len(names):
            raise ConfigError(f"two callbacks have the same name: {', '.join(names)}; give one another `name`")

    def say(self, text: str) -> None:
        """Tell the user something."""
        if self.progress is not None:
            self.progress.say(text)

    def tell(self, text: str) -> None:
        """Tell the user something, and the log file."""
        self.say(text)
        if not isinstance(self.progress, LoggedProgress):  # what that says is a record already
            log.info("%s", text, extra=FILE_ONLY)

    def phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        """Show what the run is busy with."""
        if self.progress is not None:
            self.progress.phase(name, done, total)

    def counter(self, name: str, total: int) -> Callable[[object], None]:
        """Begin a phase of `total` pieces of work; what is returned is called after each of them."""
        done = 0
        self.phase(name, 0, total)

        def count(_: object) -> None:
            nonlocal done
            done += 1
            self.phase(name, done, total)
            if self.folder is not None and self.folder.written:  # a resume may still be refused
                self.folder.heartbeat()

        return count

    def log(self, row: dict[str, Any]) -> None:
        """Hand the row of a step to everyone who wants it."""
        if self.folder is not None:
            self.folder.log_metrics(row)
        self.sinks.log(row)
        if self.progress is not None:
            self.progress.step(row)
        for callback in self.callbacks:
            callback.on_step_end(row)
