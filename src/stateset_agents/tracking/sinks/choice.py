"""Which sinks a config names.

Invariant: code of others runs only because the operator's own config names it: it is found by the name under which an
installed package registers it (entry point group `stateset_agents.trackers`), never by a path, a scenario or a
checkpoint.
"""

from __future__ import annotations

import difflib
import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ...config.schema import LoggingSection, TrackerSpec
from ...core.errors import ConfigError
from .base import MetricsSink
from .mlflow import MlflowSink
from .tensorboard import TensorBoardSink
from .trackio import TrackioSink
from .wandb import WandbSink

GROUP = "stateset_agents.trackers"
_METHODS = ("check", "start", "log", "close", "state_dict", "load_state_dict")


def chosen_sinks(logging: LoggingSection, folder: Path) -> list[MetricsSink]:
    """The sinks that a config names, none of them started.

    Args:
        logging: the section.
        folder: the run folder.

    Raises:
        ConfigError: no such tracker is installed, it takes no such options, or it is none.
    """
    sinks: list[MetricsSink] = []
    if logging.wandb is not None and logging.wandb.project is not None:
        wandb = logging.wandb
        sinks.append(WandbSink(str(wandb.project), wandb.entity, wandb.tags, wandb.samples))
    if logging.tensorboard is not None:
        sinks.append(TensorBoardSink(logging.tensorboard.log_dir or folder / "tensorboard"))
    if logging.trackio is not None:
        sinks.append(TrackioSink(logging.trackio.project))
    if logging.mlflow is not None:
        sinks.append(MlflowSink(logging.mlflow.experiment, logging.mlflow.tracking_uri))
    for place, spec in enumerate(logging.trackers):
        sink = _installed(spec, f"logging.trackers[{place}]")
        if sink.name in [other.name for other in sinks]:
            raise ConfigError(f'logging.trackers[{place}] calls itself "{sink.name}", as another tracker of this run')
        sinks.append(sink)
    return sinks


def _installed(spec: TrackerSpec, key: str) -> MetricsSink:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if spec.type not in found:
        own = " (wandb, tensorboard, trackio and mlflow have keys of their own, beside this one)"
        near = difflib.get_close_matches(spec.type, found, n=1)
        hint = f'\n  did you mean "{near[0]}"?' if near else ""
        raise ConfigError(
            f'{key}.type is "{spec.type}", and no installed package has a tracker of that name.{hint}\n'
            f"  installed: {', '.join(sorted(found)) or 'none'}{own}"
        )
    named = f'the tracker "{spec.type}" ({found[spec.type].value})'
    try:
        factory: Any = found[spec.type].load()
    except Exception as error:
        raise ConfigError(f"{named} cannot be imported: {error}") from error
    try:
        inspect.signature(factory).bind(**spec.options)
    except TypeError as error:
        taken = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ConfigError(f'{key}.options do not suit "{spec.type}": {error}\n  it takes: {taken}') from None
    try:
        sink: Any = factory(**spec.options)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{named} cannot be made: {error!r}") from error
    missing = [name for name in _METHODS if not callable(getattr(sink, name, None))]
    missing += [name for name in ("name", "rewinds") if not hasattr(sink, name)]
    if missing:
        raise ConfigError(f"{named} has no {', '.join(missing)}")
    return sink  # type: ignore[no-any-return]
