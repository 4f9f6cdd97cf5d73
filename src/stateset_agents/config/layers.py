"""Sources of config values, checked one by one and laid over each other.

Invariant: a layer that passed `check` holds only known keys with allowed values, and the merged result remembers for
every value which layer gave it, and where in that layer it stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from ..core.yaml_strict import Path
from .document import Document
from .environ import Override
from .problems import NamedPlaces, dotted, explain_all
from .schema import ConfigFile

_WHOLE_VALUES = {("training", "lora"), ("training", "overrides", "lora")}
"""Mappings that a higher layer replaces instead of filling up."""
NULL_IS_A_VALUE = frozenset({"environment_timeout", "reward_timeout", "grace_period", "ratio_cap", "value_clip"})
"""Hyperparameters of which null says something: no limit. A null of any other is one that was not given."""


class Layer(Protocol):
    """One source of values."""

    data: dict[str, Any]

    def origin(self, path: Path) -> str:
        """Where the value at `path` was written."""

    def check(self) -> list[str]:
        """Problems; afterwards `data` holds the values as the schema reads them."""


class NamedLayer:
    """Values given by name: command-line flags or environment variables."""

    def __init__(self, overrides: Iterable[Override]) -> None:
        self.data: dict[str, Any] = {}
        self._names: dict[Path, str] = {}
        for override in overrides:
            path = tuple(override.key.split("."))
            section = self.data
            for part in path[:-1]:
                section = section.setdefault(part, {})
            section[path[-1]] = override.value
            self._names[path] = override.name

    def origin(self, path: Path) -> str:
        """The flag or variable that gave the value, or the mapping that contains it."""
        while path not in self._names:
            path = path[:-1]
        return self._names[path]

    def check(self) -> list[str]:
        """Problems, each named by its flag or variable."""
        try:
            self.data = _validated(self.data)
        except ValidationError as error:
            return explain_all(error, ConfigFile, self.data, NamedPlaces(self._names))
        return []


class FileLayer:
    """The values of the config file.

    Args:
        document: the file as it was written, for places and for repeating values in messages.
        data: its values with variables expanded.
    """

    def __init__(self, document: Document, data: dict[str, Any]) -> None:
        self.data = data
        self._document = document

    def place(self, path: Path) -> str:
        """File and line, for messages."""
        return self._document.place(path)

    def subject(self, path: Path) -> str:
        """The dotted key, for messages."""
        return dotted(path)

    def origin(self, path: Path) -> str:
        """customer_service.yaml:14."""
        line = self._document.line(path)
        return f"{self._document.file.name}:{line}" if line else self._document.file.name

    def check(self) -> list[str]:
        """Problems, each with its line."""
        try:
            self.data = _validated(self.data)
        except ValidationError as error:
            return explain_all(error, ConfigFile, self._document.data, self)
        return []


def _validated(data: Mapping[str, Any]) -> dict[str, Any]:
    return ConfigFile.model_validate(data).model_dump(by_alias=True, exclude_unset=True)


class Merged:
    """Layers laid over each other, lowest first.

    Attributes:
        data: the merged values.
        origins: path of each value to where it was written.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.data: dict[str, Any] = {}
        self.origins: dict[Path, str] = {}
        # `training.overrides` wins over `training` of the same file, and loses to the layers above it.
        for layer in layers:
            self._lay(self.data, layer.data, layer, (), ())
            overrides = layer.data.get("training", {}).get("overrides") or {}
            training = self.data.setdefault("training", {})
            self._lay(training, overrides, layer, ("training",), ("training", "overrides"))
        self.data["training"].pop("overrides", None)
        self.origins = {path: origin for path, origin in self.origins.items() if path[:2] != ("training", "overrides")}

    def _lay(self, target: dict[str, Any], values: Mapping[str, Any], layer: Layer, path: Path, source: Path) -> None:
        for key, value in values.items():
            here, there = (*path, key), (*source, key)
            if value is None and path[:1] == ("training",) and here not in _WHOLE_VALUES and key not in NULL_IS_A_VALUE:
                continue  # A hyperparameter that is null is one that was not given.
            if isinstance(value, dict) and here not in _WHOLE_VALUES:
                section = target.get(key)
                target[key] = section = section if isinstance(section, dict) else {}
                if not value:
                    self.origins[here] = layer.origin(there)
                self._lay(section, value, layer, here, there)
            else:
                target[key] = value
                self._forget(here)
                if here in (("rewards",), ("alerts",)):
                    self.origins |= {(*here, i): layer.origin((*there, i)) for i in range(len(value or ()))}
                if isinstance(value, dict) and value:
                    self.origins |= {(*here, name): layer.origin((*there, name)) for name in value}
                else:
                    self.origins[here] = layer.origin(there)

    def _forget(self, path: Path) -> None:
        """Drop the origins of what stood at `path` before."""
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}
