"""JSON Schemas: what a reply or the arguments of a tool must look like.

Invariant: a schema is checked when it is given, not when a model's text meets it. It refers to its own parts only, so
that nothing is ever fetched, and whatever is held against it gets an answer and never an exception. Nothing is held
against a schema of a client's: a small one can take for ever.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


def checked_schema(schema: Mapping[str, Any], what: str) -> Validator:
    """Make a validator of a JSON Schema.

    Args:
        schema: the operator's own.
        what: the place it was given in, for messages.

    Raises:
        ConfigError: it is none, or refers to something outside itself.
    """
    if not isinstance(schema, Mapping) or not schema:
        raise ConfigError(f'{what} is {schema!r:.60}; it must be a JSON Schema such as {{"type": "object"}}')
    validator = well_formed(schema, what)
    try:
        probes: tuple[Any, ...] = (None, {}, [])
        for probe in probes:
            list(validator.iter_errors(probe))
    except RecursionError:
        raise ConfigError(f"{what} refers to itself without end") from None
    return validator


def well_formed(schema: Mapping[str, Any], what: str) -> Validator:
    """A validator of a JSON Schema that may refer to itself without end; made in time in proportion to its size.

    Args:
        schema: anybody's.
        what: the place it was given in, for messages.

    Raises:
        ConfigError: it is none, or refers to something outside itself.
    """
    import jsonschema  # slow to import, and no other reward needs it

    plain = dict(schema)
    if not isinstance(plain.get("$schema", ""), str):
        raise ConfigError(f'{what} is no JSON Schema: its "$schema" is {plain["$schema"]!r:.60}; it must be a text')
    kind = jsonschema.validators.validator_for(plain, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(plain)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"{what} is no JSON Schema: at {error.json_path}, {error.message}") from None
    for reference in _references(plain):
        if not re.match(r"#(/|$)", reference):
            raise ConfigError(f'{what} refers to "{reference}"; it may refer to its own parts only ("#/$defs/x")')
        if not _has(plain, reference):
            raise ConfigError(f'{what} refers to "{reference}", which it does not have')
    return kind(plain)


def fits(validator: Validator, document: Any) -> bool:
    """Whether a document fits; one that cannot be compared (a number too large to divide, say) does not."""
    try:
        return validator.is_valid(document)
    except (ArithmeticError, RecursionError):
        return False


def violations(validator: Validator, document: Any) -> list[str]:
    """What a document violates, each with its place, in the order of the places; empty if it fits."""
    try:
        found = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    except (ArithmeticError, RecursionError) as error:
        return [f"it cannot be compared with the schema: {error}"]
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message:.200}".removeprefix(": ") for one in found]


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _has(schema: Any, reference: str) -> bool:
    """Whether a schema has the part that a JSON pointer names."""
    for part in urllib.parse.unquote(reference).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping) and key in schema:
            schema = schema[key]
        elif isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        else:
            return False
    return isinstance(schema, Mapping | bool)
