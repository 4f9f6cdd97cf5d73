"""What `grpo-train --resume` takes from the run that it continues.

Invariant: nothing that was told to the run needs telling again. Without a config file the run's own `config.yaml` is
the config; with one, or without, the options that were typed at its start count as typed, unless they are given anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Override, RunConfig, load_config
from ..config.document import read_document
from ..config.run_config import left_out
from ..core.errors import ConfigError, RunFolderError


def own_config(folder: Path, overrides: Sequence[Override], output_dir: str | None) -> RunConfig:
    """The config that a run wrote into its folder.

    Args:
        folder: of the run.
        overrides: see `load_config`.
        output_dir: the folder, if it was typed.

    Raises:
        RunFolderError: there is no run, or it was killed before it wrote one.
        ConfigError: what it wrote is none: it is damaged, or was written by a program that made its parts itself.
    """
    from ..tracking.layout import CONFIG
    from ..tracking.run_folder import RunFolder

    file = RunFolder.open(folder).path / CONFIG
    if not file.is_file():
        raise RunFolderError(
            f"{folder} was stopped while it began, before its {CONFIG} was written: nothing of it is lost.\n"
            "  give the config file as well, as at its start"
        )
    try:
        return as_told(load_config(file, overrides=overrides, output_dir=output_dir))
    except ConfigError as error:
        if not any(text.startswith(f"config error in {CONFIG}") for text in error.problems):
            raise
        raise ConfigError(
            *error.problems,
            f"  that is {file}, which the run wrote: give the config file as well, and the options, as at its start.\n"
            "  a run that was started in Python goes on there: train(..., resume=True)",
        ) from None


def as_told(config: RunConfig) -> RunConfig:
    """A run's own config with the origins it had: a value that nobody gave is left to an environment's own class."""
    told = _origins(config.config_file.parent)
    here = f"{config.config_file.name}:"
    given = {key: origin for key, origin in config.origins.items() if not origin.startswith(here)}
    notes = (*_notes(config.config_file), *config.notes)
    return replace(config, origins={**told, **given} if told else config.origins, notes=notes, unused=())


def _notes(file: Path) -> list[str]:
    """What somebody should know who goes on by the config that a run wrote."""
    missing = [name for name in left_out(file) if name not in os.environ]
    told = f"{', '.join(missing)}: secret, and so not in it. Set it in the shell, or give the config file as well"
    return [f"with the settings of {file}", *([told] if missing else [])]


def typed_before(folder: Path) -> list[Override]:
    """The values that options gave to the run in a folder; none where it does not say, or no longer does."""
    from ..tracking.layout import CONFIG

    options = {key: origin for key, origin in _origins(folder).items() if origin.startswith("--") and "." in key}
    if not options or not (folder / CONFIG).is_file():
        return []
    try:
        data = read_document(folder / CONFIG).data
    except ConfigError:  # it is damaged: what is told then is compared with the checkpoint
        return []
    found = ((key, _value(data, key), origin) for key, origin in options.items())
    return [Override(key, value, origin) for key, value, origin in found if value is not None]


def _origins(folder: Path) -> dict[str, str]:
    """Where each value of a run was written; nothing of one that was stopped too soon or had no config file."""
    from ..tracking.layout import ORIGINS

    try:
        origins = json.loads((folder / ORIGINS).read_text(encoding="utf-8"))
        return {str(key): str(origin) for key, origin in origins.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _value(data: Mapping[str, Any], key: str) -> Any:
    value: Any = data
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value.replace("$${", "${") if isinstance(value, str) else value


def as_typed(overrides: Sequence[Override]) -> str:
    """Options as they would be typed, for a note."""
    alone = ("--no-gpu", "--debug")
    shown = (isinstance(one.value, bool) or one.name in alone for one in overrides)
    return ", ".join(
        one.name if bare else f"{one.name} {one.value}" for one, bare in zip(overrides, shown, strict=True)
    )
