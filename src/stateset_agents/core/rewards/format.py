"""Format: the reply is JSON, and fits a schema.

Invariant: a reply is read as strictly as the programs that will read it: no text around it unless that is allowed, no
key twice, no NaN, and nothing that takes more than linear time or a deep stack to read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ..data_file import read_data_file
from ..errors import ConfigError
from ..json_schema import checked_schema, fits
from ..tool_calls import replies
from .base import Context, RewardFunction, RewardResult, Turns

_LONGEST = 100_000
_DEEPEST = 32
_TRIES = 20
JUDGED = ("last", "every")


class FormatReward(RewardFunction):
    """1 if the reply is a JSON object or array that fits the schema, otherwise 0.

    A bare text, number, `true` or `null` is JSON and no document: it counts only where a schema allows it. In its
    breakdown, `json` is whether it could be read and `schema` whether it fits.

    It sees form, not content: `{}` passes without a schema, and with one any values of the right kinds do, be they
    invented. A schema with `required`, `additionalProperties: false`, `minLength` and `enum` leaves less room. There is
    no half of a right format; where that is too coarse to begin with, add a second one without a schema.

    Args:
        weight: see `RewardFunction`.
        json_schema: a JSON Schema (draft 2020-12 unless its `$schema` says otherwise); its patterns are run on what
            the model writes, so keep them simple.
        schema_file: a JSON or YAML file with it.
        allow_text: whether there may be text around the JSON, such as a sentence or a code fence; it must still hold
            one document and not several.
        judged: "last" reply, or the mean over "every" one.
        name: see `RewardFunction`.

    Raises:
        ConfigError: the schema is none, is given twice or refers to something outside itself; or judged is unknown.
        DataError: the file is missing or does not parse.
    """

    maximum = 1.0
    json_schema: Mapping[str, Any] | None = None
    allow_text: bool = False
    judged: str = "last"

    def __init__(
        self,
        weight: float = 1.0,
        json_schema: Mapping[str, Any] | None = None,
        schema_file: str | Path | None = None,
        allow_text: bool = False,
        judged: Literal["last", "every"] = "last",
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        if json_schema is not None and schema_file is not None:
            raise ConfigError(f"{self.label} takes json_schema or schema_file, not both")
        if judged not in JUDGED:
            raise ConfigError(f"judged is {judged!r}; it must be one of {', '.join(JUDGED)}")
        if schema_file is not None:
            json_schema = read_data_file(Path(schema_file), "schema file", "a JSON Schema")
        self.json_schema, self.allow_text, self.judged = json_schema, bool(allow_text), judged
        self._validator = None if json_schema is None else checked_schema(json_schema, f"json_schema of {self.label!r}")

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Read the judged replies."""
        heard = [turn.content for turn in replies(turns)]
        if self.judged == "every":
            return RewardResult.mean([float(all(self._read(text).values())) for text in heard])
        if not heard:
            return RewardResult(0.0)
        found = self._read(heard[-1])
        score = float(all(found.values()))
        return RewardResult(score, found, turn_rewards=[0.0] * (len(heard) - 1) + [score])

    def _read(self, text: str) -> dict[str, float]:
        documents = list(_documents(text, allow_text=self.allow_text))
        if len(documents) != 1:
            return {"json": 0.0}
        if self._validator is None:
            return {"json": float(isinstance(documents[0], dict | list))}
        return {"json": 1.0, "schema": float(fits(self._validator, documents[0]))}


def read_strictly(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, has a key twice, a number that is not finite, or is too long or too deep.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None
    if _depth(value) > _DEEPEST:
        raise ValueError(f"deeper than {_DEEPEST} levels")
    return value


def _documents(text: str, *, allow_text: bool) -> Iterator[Any]:
    """The JSON documents of a reply: the reply itself, or each object or array that stands in it."""
    if not allow_text:
        try:
            yield read_strictly(text)
        except ValueError:
            return
        return
    text, place, tries = text[:_LONGEST], 0, 0
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
    while tries < _TRIES:
        starts = [at for at in (text.find("{", place), text.find("[", place)) if at >= 0]
        if not starts:
            return
        place, tries = min(starts), tries + 1
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        if _depth(value) <= _DEEPEST:
            yield value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
