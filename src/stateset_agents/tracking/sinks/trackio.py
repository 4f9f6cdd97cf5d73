"""trackio.

Invariant: everything stays on this machine, in the folder that trackio itself uses (`TRACKIO_DIR`), where
`trackio show` finds it: no server is started, nothing is uploaded, and nothing is said on standard output.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ...core.errors import ConfigError
from .base import import_package, tag

_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioSink:
    """A run of a trackio project.

    Args:
        project: whose runs are compared with each other.
    """

    name = "trackio"
    rewinds = False

    def __init__(self, project: str) -> None:
        self.project = project
        self._run_name: str | None = None
        self._run: Any = None

    def check(self) -> None:
        """The package is there and told to stay here; see `MetricsSink.check`."""
        self._package()
        for name in _REMOTE:
            if os.environ.get(name):
                raise ConfigError(
                    f"{name} is set, which has trackio send what it gets, and logging.trackio is for this machine "
                    f"only.\n  unset {name}; `trackio sync` uploads a project afterwards"
                )

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Begin or take up a run; see `MetricsSink.start`."""
        self.check()
        if self._run_name is None:  # trackio finds a run by its name, and many run folders have the same
            self._run_name = f"{folder.resolve().name}-{secrets.token_hex(3)}"
        try:
            with _silence():
                self._run = self._package().init(
                    project=self.project,
                    name=self._run_name,
                    config=dict(config),
                    resume="allow",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        except Exception as error:
            raise ConfigError(f"trackio did not start: {error}\n  mend that, or leave out logging.trackio") from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy one step; see `MetricsSink.log`."""
        self._run.log({tag(key): value for key, value in metrics.items()}, step=step)

    def close(self, *, failed: bool) -> None:
        """Write what is left; see `MetricsSink.close`."""
        with _silence():
            self._run.finish()

    def state_dict(self) -> dict[str, Any]:
        """The name of the run."""
        return {"run": self._run_name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the run of that name."""
        self._run_name = state.get("run")

    @staticmethod
    def _package() -> Any:
        return import_package("trackio", extra="trackio", key="logging.trackio")


@contextmanager
def _silence() -> Iterator[None]:
    """Keep its greetings off standard output, which is for the report. What other threads print gets there."""
    with contextlib.redirect_stdout(_SilentHere(sys.stdout)):
        yield


class _SilentHere(io.TextIOBase):
    """A stream without what the thread that made it writes: it may be left behind with a call that hangs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()
