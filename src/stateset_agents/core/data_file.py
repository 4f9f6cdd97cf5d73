"""JSON and YAML files of data: scenarios, ground truth.

Invariant: a value is what it looks like. In YAML `012`, `no` and `12:30` are text, as in a config; a key that is given
twice is refused in both; whatever is wrong is a DataError that names the file and, where there is one, the line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import DataError

MAX_VALUES = 5_000_000


def read_data_file(path: Path, what: str, shape: str) -> Any:
    """The values in a data file; YAML by its suffix `.yaml` or `.yml`, otherwise JSON.

    Args:
        path: the file.
        what: what kind of file it is, for messages: "scenarios file".
        shape: what it should hold, for messages.

    Raises:
        DataError: it is missing, unreadable, empty or does not parse.
    """
    text = read_text(path, what)
    if not text.strip():
        raise DataError(f"{what} {path} is empty; it must be {shape}")
    data = _parse_yaml(path, text) if path.suffix.lower() in (".yaml", ".yml") else _parse_json(path, text)
    for place in half_characters(data):
        raise DataError(f"{path}: {shown_place(place)} {HALF_CHARACTER}")
    return data


def read_text(path: Path, what: str) -> str:
    """The text of a file of data.

    Raises:
        DataError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist (looked in {path.parent.resolve()})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}") from None


HALF_CHARACTER = "holds half of a surrogate pair (such as \\ud83d alone), which is no character: write the whole one"


def half_characters(data: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Places of the texts, keys included, that cannot be written as UTF-8: JSON's escapes can spell such."""
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError:
            yield place
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from half_characters(key, place)
            yield from half_characters(value, (*place, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from half_characters(value, (*place, number))


def shown_place(place: tuple[str | int, ...]) -> str:
    """`agent.stop[0]`; "it" for the whole of a file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".").encode("utf-8", "backslashreplace").decode() or "it"


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}: not valid JSON: values are nested too deep") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError:
        line, problem = too_long_number(text)
        raise DataError(f"{path}, line {line}: {problem}") from None


_TEXT_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*')


def too_long_number(text: str) -> tuple[int, str]:
    """Line and description of the first whole number in a JSON text that Python refuses to read for its length."""
    limit = sys.get_int_max_str_digits()
    for match in _TEXT_OR_NUMBER.finditer(text):
        digits = match[0].removeprefix("-")
        if digits.isdecimal() and len(digits) > limit:
            line = text.count("\n", 0, match.start()) + 1
            return (
                line,
                f"a number of {len(digits)} digits; at most {limit} can be read. Put it in quotes if it is text",
            )
    raise AssertionError("no number is too long")


def _parse_yaml(path: Path, text: str) -> Any:
    from .yaml_strict import YamlProblem, parse_yaml

    try:
        parsed = parse_yaml(text, max_nodes=MAX_VALUES)
    except YamlProblem as problem:
        raise DataError(f"{path}, line {problem.line}: {problem}") from None
    if parsed.problems:
        raise DataError("\n".join(f"{path}, line {line}: {message}" for line, message in parsed.problems))
    return parsed.data


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its pairs, for `json.loads`.

    Raises:
        DataError: a key is there twice.
    """
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the key {repeated!r} appears twice in one object ({', '.join(names)}); keep one of them")
    return data
