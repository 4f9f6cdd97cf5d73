"""pydantic's errors as sentences for the person who wrote the config.

Invariant: every problem found is told, each with its place, its key, the value, what is allowed and, where one can be
guessed, the fix. Values of secrets are never repeated.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from ..core.secrets import is_secret
from ..core.yaml_strict import Path
from .fields import Section

_MISSING = object()

_FEW = 16
"""So many known keys are still worth reading in a message."""

_HINTS = {
    ("training", "num_generations"): "a group of one has nothing to be compared with; 8 or 16 are usual",
    ("agent", "temperature"): "at 0 all conversations of a group would be alike, and nothing could be learned",
}


class Places(Protocol):
    """Says where a value was written and what to call it."""

    def place(self, path: Path) -> str:
        """The file and line, or "" where the subject alone says it."""

    def subject(self, path: Path) -> str:
        """The key, flag or variable."""


class NamedPlaces:
    """Values given by name in Python or on the command line, not in a file.

    Args:
        names: what to call the value at a path, such as "--num-episodes"; other paths are called by their keys.
    """

    def __init__(self, names: Mapping[Path, str] | None = None) -> None:
        self.names = names or {}

    def place(self, path: Path) -> str:
        """A name needs no place."""
        return ""

    def subject(self, path: Path) -> str:
        """The name, or the dotted key."""
        return self.names.get(path) or dotted(path)


class Conflicts(ValueError):
    """Values that are each allowed, and not together. Each sentence begins with the key that it is about."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("; ".join(sentences))


def dotted(path: Path) -> str:
    """("rewards", 2, "type") as "rewards[2].type"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: object, known: Iterable[str]) -> str | None:
    """The known word nearest to `word`, if one is near."""
    names = {name.lower().replace("-", "_"): name for name in known}
    near = difflib.get_close_matches(str(word).lower().replace("-", "_"), names, n=1, cutoff=0.6)
    return names[near[0]] if near else None


def problem(place: str, message: str, hint: str | None = None) -> str:
    """One problem in the form that commands print."""
    text = f"config error in {place}: {message}" if place else f"config error: {message}"
    return f"{text}\n  {hint}" if hint else text


def shown(value: object, name: str = "") -> str:
    """A value as messages repeat it: quoted if text, shortened, hidden if its key is secret."""
    if is_secret(name.removesuffix("_env")):  # the name of a variable is no secret; what stands there by mistake may be
        return "***"
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 70 else text[:67] + "..."


def explain_all(error: ValidationError, model: type[BaseModel], raw: object, places: Places) -> list[str]:
    """One sentence per problem, in the order of the file.

    Args:
        error: what pydantic found.
        model: the model that was validated, to list what is known.
        raw: the data as it was written, to repeat values.
        places: where the data came from.
    """
    found = []
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        conflicts = item.get("ctx", {}).get("error")
        if isinstance(conflicts, Conflicts):
            keyed = ((places.place((*path, sentence.split()[0])), sentence) for sentence in conflicts.sentences)
            found += [problem(place, f"{sentence}.") for place, sentence in keyed]
            continue
        message, hint = _message(item, path, model, raw, places)
        found.append(problem(places.place(path), message, hint))
    return list(dict.fromkeys(found))


def _message(item: Any, path: Path, model: type[BaseModel], raw: object, places: Places) -> tuple[str, str | None]:
    kind, context = item["type"], item.get("ctx", {})
    subject = places.subject(path)
    key = str(path[-1]) if path else ""
    value = _value_at(raw, path)
    stated = f"{subject} is {shown(value, key)}" if value is not _MISSING and subject else subject
    if kind == "extra_forbidden":
        return f"{subject} is not a known key.", _known_hint(model, path, raw)
    if kind == "missing":
        return f"{subject} is missing.", None
    if kind == "literal_error":
        return _not_allowed(stated, value, path, model, raw)
    if kind == "value_error":
        reason = str(context["error"])
        if not subject:
            return f"{reason}.", None
        if isinstance(value, dict):
            return f"{subject}: {reason}.", None
        return f"{stated}: {reason}.", _HINTS.get(_last_two(path))
    limits = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("greater than", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("less than", "lt"),
    }
    if kind in limits:
        words, name = limits[kind]
        return f"{stated}; it must be {words} {context[name]}.", _HINTS.get(_last_two(path))
    return f"{stated}; want {_wanted(kind)}.", _type_hint(kind, value)


def _wanted(kind: str) -> str:
    wanted = {
        "int_parsing": "a whole number",
        "int_parsing_size": "a smaller whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text",
        "string_too_short": "text that is not empty",
        "list_type": "a list",
        "too_short": "a list that is not empty",
        "dict_type": "a mapping of keys to values",
        "model_type": "a mapping of keys to values",
        "model_attributes_type": "a mapping of keys to values",
    }
    return wanted.get(kind, f"something else ({kind.replace('_', ' ')})")


def _type_hint(kind: str, value: object) -> str | None:
    if kind == "string_type" and isinstance(value, (int, float)):
        return f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    return None


def _not_allowed(stated: str, value: object, path: Path, model: type[BaseModel], raw: object) -> tuple[str, str]:
    allowed = _literals_at(model, path, raw)
    near = did_you_mean(value, allowed)
    hint = f"allowed: {', '.join(allowed)}"
    return f"{stated}, which does not exist.", f'did you mean "{near}"?  {hint}' if near else hint


def _known_hint(model: type[BaseModel], path: Path, raw: object) -> str:
    section = _model_at(model, path[:-1], raw)
    known = _keys(section)
    owner = section.owner(str(path[-1])) if section is not None and issubclass(section, Section) else None
    if owner:
        return owner + (f"; known keys: {', '.join(known)}" if len(known) <= _FEW else "")
    near = did_you_mean(path[-1], known)
    if near:
        return f'did you mean "{near}"?' + (f"  known keys: {', '.join(known)}" if len(known) <= _FEW else "")
    homes = [dotted((*home, path[-1])) for home in _homes(model, str(path[-1])) if home != path[:-1]]
    if homes:
        return f"it belongs in {homes[0]}"
    return f"known keys: {', '.join(known)}"


def _homes(model: type[BaseModel], key: str) -> list[Path]:
    """The sections directly under the top that know `key`, the top itself included."""
    homes: list[Path] = [()] if key in _keys(model) else []
    for name, field in model.model_fields.items():
        inner, is_list = _inner_model(field.annotation)
        if inner is not None and not is_list and key in _keys(inner):
            homes.append((field.alias or name,))
    return homes


def _last_two(path: Path) -> tuple[str, str]:
    keys = [part for part in path if isinstance(part, str) and part != "overrides"]
    if len(keys) == 1:
        keys = ["training", *keys]
    return (keys[-2], keys[-1]) if len(keys) >= 2 else ("", "")


def _value_at(raw: object, path: Path) -> object:
    for part in path:
        if isinstance(raw, dict):
            raw = raw.get(part, _MISSING)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            return _MISSING
    return raw


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _annotation_at(model: type[BaseModel], path: Path, raw: object) -> Any:
    annotation: Any = model
    for depth, part in enumerate(path):
        inner = _narrowed(annotation, _value_at(raw, path[:depth]))
        if isinstance(part, int) or inner is None:
            continue
        for name, field in inner.model_fields.items():
            if part in (name, field.alias):
                annotation = field.annotation
    return annotation


def _model_at(model: type[BaseModel], path: Path, raw: object) -> type[BaseModel] | None:
    return _narrowed(_annotation_at(model, path, raw), _value_at(raw, path))


def _narrowed(annotation: Any, value: object) -> type[BaseModel] | None:
    inner, _ = _inner_model(annotation)
    return inner.narrowed(value) if inner is not None and issubclass(inner, Section) else inner


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section model inside an annotation such as `list[RewardSpec] | None`, and whether a list holds it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in typing.get_args(annotation):
        inner, is_list = _inner_model(argument)
        if inner is not None:
            return inner, is_list or typing.get_origin(annotation) is list
    return None, False


def _literals_at(model: type[BaseModel], path: Path, raw: object) -> list[str]:
    def collect(annotation: Any) -> list[str]:
        if typing.get_origin(annotation) is typing.Literal:
            return [str(argument) for argument in typing.get_args(annotation)]
        return [name for argument in typing.get_args(annotation) for name in collect(argument)]

    return collect(_annotation_at(model, path, raw))
