"""Names of a package that are fetched from their homes on first use (PEP 562).

Invariant: importing the package loads none of the homes; a name that was fetched is an ordinary one from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def fetched(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        homes: module of each name, relative to the package.
    """
    names = vars(sys.modules[package])

    def get(name: str) -> Any:
        """Fetch a public name from its home.

        Raises:
            AttributeError: the package has no such name.
        """
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        names[name] = value = getattr(import_module(f".{homes[name]}", package), name)
        return value

    def listed() -> list[str]:
        """The public names, fetched or not, beside what is loaded."""
        return sorted({*names, *homes})

    return get, listed
