"""What a checkpoint is not believed about.

Invariant: a checkpoint is data, from wherever it came. Code that it names is never imported, a server that it names is
never asked, a variable that it names is never read, and of the files and models that it names only its own and those of
this package are loaded. Each of the others needs the operator's own config, and the error says how to give it.
"""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.run_config import started_from
from ..core.errors import ConfigError
from ..core.reward import KINDS
from ..models.names import EMBEDDED, TINY, is_stub


def refusal(checkpoint: Path, what: str, config: str = "") -> ConfigError:
    """The error for what only the operator's own config may name.

    Args:
        checkpoint: its folder.
        what: what it names, as the end of "the checkpoint names".
        config: what to write in such a config, as YAML.
    """
    shown = f"\n  where there is none, these lines are enough:\n{textwrap.indent(config, ' ' * 4)}" if config else ""
    return ConfigError(
        f"{checkpoint} names {what}. A checkpoint's word is not enough for that: it may come from anywhere.\n"
        f"  give the config that names it, such as the one of the run: {_with_config(checkpoint)}" + shown.rstrip()
    )


def lies_in(checkpoint: Path, name: str) -> bool:
    """Whether a path is one of the checkpoint's own, wherever its links lead. A relative one is read from elsewhere."""
    return Path(name).is_absolute() and Path(name).resolve().is_relative_to(checkpoint.resolve())


def is_own_model(checkpoint: Path, name: str) -> bool:
    """Whether a model is one of this package's, or of the checkpoint's."""
    return is_stub(name) or name in (TINY, EMBEDDED) or lies_in(checkpoint, name)


def foreign(entry: Mapping[str, Any], checkpoint: Path) -> Iterator[str]:
    """What a reward's entry names that is not this package's own, nor the checkpoint's."""
    for part in mappings(entry.get("functions")):
        yield from foreign(part, checkpoint)
    kind = entry.get("type")
    if kind == "custom":
        yield f"the reward {entry.get('module')}"
    elif entry.get("rebuildable") is False:
        yield f"a reward of type {kind} that was made in code"
    elif kind == "rubric":
        checks = mappings(entry.get("checks"))
        yield from (f"the predicate {one['predicate']}" for one in checks if "predicate" in one)
    elif isinstance(kind, str) and kind in KINDS and "base_url" in KINDS[kind].options:
        yield f"the server {entry.get('base_url')} that judges conversations"
    elif isinstance(kind, str) and kind in KINDS:
        for key, option in KINDS[kind].options.items():
            if option.file and entry.get(key) is not None and not lies_in(checkpoint, str(entry[key])):
                yield f"the {'folder' if option.folder else 'file'} {entry[key]} of a reward"


def plain(value: Any, path: Path) -> Any:
    """Text as it was before it was escaped for a config file.

    Raises:
        ConfigError: it was made from a secret variable.
    """
    if isinstance(value, dict):
        return {key: plain(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, path) for item in value]
    if not isinstance(value, str):
        return value
    if "${" in value.replace("$${", ""):
        raise refusal(path, f"a variable in {json.dumps(value)}")
    return value.replace("$${", "${")


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; whatever else is there, who makes something of it refuses."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _with_config(checkpoint: Path) -> str:
    """How to give a config: the command that was typed with one more option, or the call."""
    program = Path(sys.argv[0]).name
    file = "my_config.yaml"
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        first = started_from(folder / "config.yaml")
        # A file in the run's folder may have come with the checkpoint.
        if first is not None and not first.resolve().is_relative_to(folder.resolve()):
            file = str(first)
    if program.startswith("grpo-"):
        return shlex.join([program, *sys.argv[1:], "--config-file", file])
    return f"open_trained({str(checkpoint)!r}, config_file={file!r})"
