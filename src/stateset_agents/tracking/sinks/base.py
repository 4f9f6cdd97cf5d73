"""What a place that metrics are copied to has to do.

Invariant: a sink's methods are called one after the other, by one thread that is not the trainer's. So a sink may take
its time and may raise: neither reaches the run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ...core.errors import ConfigError

COLUMNS = ("step", "scenario", "conversation", "reward", "outcome")
"""Of a row of samples."""


class MetricsSink(Protocol):
    """One place to copy metrics to."""

    name: str
    """Shown in messages; no two sinks of a run have the same."""

    rewinds: bool
    """Whether `start` takes back what was sent for steps after `start_step`. A sink that cannot is not sent a second
    time what it has."""

    def check(self) -> None:
        """Refuse, before anything is made, what cannot work.

        Raises:
            ConfigError: says what to install or to set.
        """
        ...

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Connect; `start_step` steps were done by an earlier part of the run.

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
        """What a resumed run needs to go on with the same record; JSON. Asked once, after `start`."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the record of an earlier part of the run; called before `start`, and only if there is one."""
        ...


@runtime_checkable
class SamplesSink(Protocol):
    """A sink that may be sent conversations too, if somebody asked for them."""

    samples: int
    """Conversations of each step that it gets; 0: none."""

    def log_samples(self, step: int, rows: Sequence[Sequence[object]]) -> None:
        """Copy some of a step's conversations: rows of `COLUMNS`, secrets masked."""
        ...


def import_package(module: str, *, extra: str, key: str) -> Any:
    """Import what a sink needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{key} needs the package {module}, which is not installed.\n"
            f'  pip install "grpo-agent-framework[{extra}]", or leave {key} out'
        ) from error


def tag(key: str) -> str:
    """The name of a metric where charts are grouped by what stands before the slash."""
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
