"""Environment variables: `${NAME}` in values, and the config's own `environment_variables`.

Invariant: what the shell has set wins over what a config sets. A name that code is imported by (`module`, `class`,
`function`, `success_criteria`) is never made from a variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..core.secrets import is_secret
from ..core.yaml_strict import Path
from .document import Document
from .problems import dotted, problem

_REFERENCE = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CODE_KEYS = {"module", "class", "function", "success_criteria"}

READ_AT_START = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")
"""Variables that the interpreter or the system's loader reads before any config."""


class Expansion:
    """Replaces `${NAME}` and `${NAME:-default}` in the text values of a document; `$${` stays a plain `${`.

    Attributes:
        problems: sentences about variables that are not set and have no default.
        references: path of each value made from a secret variable to its text with the reference still in it.
    """

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self.problems: list[str] = []
        self.references: dict[Path, str] = {}

    def expand(self, value: Any, path: Path = ()) -> Any:
        """The value with every reference in it replaced, at any depth."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*path, i)) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if path and path[-1] in _CODE_KEYS:
            self._report(path, f"{dotted(path)} names code, so it cannot be made from a variable.", "write the name")
            return value
        return _REFERENCE.sub(lambda match: self._replace(match, value, path), value)

    def _replace(self, match: re.Match[str], text: str, path: Path) -> str:
        if match["escaped"]:
            return "${"
        if match["bad"]:
            self._report(path, f"{dotted(path)} has a ${{ that starts no variable.", "write $${ for a plain ${")
            return ""
        name, default = match["name"], match["default"]
        if is_secret(name):
            self.references[path] = text
        found = self._environ.get(name)
        if not found and default is not None:
            return default
        if found is None:
            self._report(
                path,
                f"{dotted(path)} refers to the environment variable {name}, which is not set.",
                f"set it, or give a default: ${{{name}:-value}}",
            )
            return ""
        return found

    def _report(self, path: Path, message: str, hint: str) -> None:
        self.problems.append(problem(self._document.place(path), message, hint))


def check_variable_names(document: Document) -> list[str]:
    """Problems with the names in `environment_variables`."""
    block = document.data.get("environment_variables")
    if not isinstance(block, dict):
        return []
    return [
        problem(
            document.place(("environment_variables", name)),
            f'"{name}" cannot be the name of an environment variable.',
            "letters, digits and underscores, not starting with a digit",
        )
        for name in block
        if not _VARIABLE.fullmatch(name)
    ]


def apply_environment_variables(variables: Mapping[str, str]) -> list[str]:
    """Set the config's variables for this process, before torch and tokenizers look at them.

    Returns:
        Names that were left alone because the environment had set them to something else.
    """
    kept = []
    for name, value in variables.items():
        if os.environ.setdefault(name, value) != value:
            kept.append(name)
    return kept
