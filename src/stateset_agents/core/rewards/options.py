"""A key of a reward's entry in a config, and what may stand under it.

Invariant: an option says all that can be said of a value without its reward; who reads a config and who makes a reward
of an entry ask it the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a finite number", lambda value: _is_number(value) and math.isfinite(value)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("a text that is not blank", lambda value: isinstance(value, str) and bool(value.strip())),
    list[str]: ("a list of texts", lambda value: _is_list(value) and all(isinstance(text, str) for text in value)),
    dict[str, Any]: ("a mapping", lambda value: isinstance(value, Mapping)),
}


@dataclass(frozen=True)
class Option:
    """A key of a reward's entry.

    Attributes:
        kind: what it holds: `int`, `float`, `bool`, `str`, a type made of these such as `list[str]`, or `Any` for what
            the class itself checks.
        meaning: for readers of a config.
        at_least, at_most, above: limits of a number.
        check: whether a value will do, where its kind does not say it; `wanted` is then the value in words. The message
            does not repeat what was given, which may be a secret in the wrong place.
        needed: whether it may not be left out.
        example: of a whole entry, where it is needed.
        file: whether it names a data file, which lies beside the config.
        folder: whether what it names may be a folder.
    """

    kind: Any
    meaning: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    check: Callable[[Any], bool] | None = None
    wanted: str = ""
    needed: bool = False
    example: str = ""
    file: bool = False
    folder: bool = False

    def objection(self, value: Any) -> str:
        """What it is and must be, to follow its name; "" if it will do."""
        if self.check is not None:
            return "" if self.check(value) else f"must be {self.wanted}"
        if self.file and isinstance(value, Path):
            return ""
        choices = get_args(self.kind) if get_origin(self.kind) is Literal else ()
        if choices:
            return "" if value in choices else f"is {value!r:.80}; it must be one of {', '.join(choices)}"
        wanted, is_one = _KINDS.get(self.kind, ("", lambda value: True))
        if not is_one(value):
            return f"is {value!r:.80}; it must be {'the path of a file' if self.file else wanted}"
        too_low = self.at_least is not None and value < self.at_least
        too_high = self.at_most is not None and value > self.at_most
        if too_low or too_high or (self.above is not None and value <= self.above):
            return f"is {value!r}; it must be {wanted} {self._limits()}"
        return ""

    def _limits(self) -> str:
        limits = (("of at least", self.at_least), ("of at most", self.at_most), ("above", self.above))
        return " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)
