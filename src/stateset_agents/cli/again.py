"""What `grpo-train --resume` takes from the run that it continues.

Invariant: nothing that was told to the run needs telling again. Without a config file the run's own `config.yaml` is
the config; with one, or without, the options that were typed at its start count as typed, unless they are given anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Override
from ..config.document import read_document
from ..config.run_config import left_out


def config_of(folder: Path) -> Path:
    """The config that a run wrote into its folder.

    Raises:
        RunFolderError: there is no run.
    """
    from ..tracking.run_folder import CONFIG, RunFolder

    return RunFolder.open(folder).path / CONFIG


def notes_of(file: Path) -> list[str]:
    """What somebody should know who goes on by the config that a run wrote."""
    missing = [name for name in left_out(file) if name not in os.environ]
    told = f"{', '.join(missing)}: secret, and so not in it. Set it in the shell, or give the config file as well"
    return [f"with the settings of {file}", *([told] if missing else [])]


def typed_before(folder: Path) -> list[Override]:
    """The values that options gave to the run in a folder; none where it does not say.

    Raises:
        ConfigError: its `config.yaml` is damaged.
    """
    from ..tracking.run_folder import CONFIG, ORIGINS

    try:
        origins = json.loads((folder / ORIGINS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a run that was stopped before it wrote them, or one that had no config file
        return []
    options = {key: origin for key, origin in origins.items() if str(origin).startswith("--") and "." in key}
    if not options or not (folder / CONFIG).is_file():
        return []
    data = read_document(folder / CONFIG).data
    found = ((key, _value(data, key), origin) for key, origin in options.items())
    return [Override(key, value, origin) for key, value, origin in found if value is not None]


def _value(data: Mapping[str, Any], key: str) -> Any:
    value: Any = data
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value.replace("$${", "${") if isinstance(value, str) else value
