"""A config file as data that still knows its lines.

Invariant: whatever the file holds (nothing, a picture, a list, five gigabytes), the result is either a mapping with
the line of every key or a ConfigError that names the file, the line and the fix.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ..core.data_file import HALF_CHARACTER, half_characters, shown_place, too_long_number
from ..core.errors import ConfigError
from ..core.yaml_strict import ParsedYaml, Path, YamlProblem, parse_yaml

MAX_BYTES = 1_000_000

_LIST_KEYS = ("combination_method", "reward_combination")


@dataclass
class Document:
    """The contents of one config file.

    Attributes:
        file: the file, as the user named it.
        data: the top-level mapping.
        lines: path of each key and list item to its line, counted from 1.
        texts: path of each unquoted scalar to its spelling in the file.
        notes: sentences about what was read with tolerance.
    """

    file: FilePath
    data: dict[str, Any]
    lines: dict[Path, int]
    texts: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def line(self, path: Path) -> int | None:
        """Line of the key at `path`, or of the nearest key that contains it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def place(self, path: Path) -> str:
        """File and line for messages: `customer_service.yaml, line 14`."""
        line = self.line(path)
        return f"{self.file.name}, line {line}" if line else self.file.name

    def spelled(self, path: Path, value: Any) -> str:
        """The value as text: its spelling in the file where it was not quoted."""
        return self.texts.get(path, str(value))


def read_document(file: str | FilePath) -> Document:
    """Read a YAML or JSON config file.

    Raises:
        ConfigError: missing, not a file, too large, not text, empty, unparsable, or not a mapping at the top.
    """
    file = FilePath(file)
    text = _read_text(file)
    notes: list[str] = []
    parsed = _parse_json(file, text) if file.suffix.lower() == ".json" else _parse_yaml(file, text, notes)
    if parsed.problems:
        raise ConfigError(*(_sentence(file, line, message) for line, message in parsed.problems))
    if parsed.data is None:
        raise ConfigError(
            _sentence(file, None, 'the file is empty.\n  a config has at least "agent" and "environment" sections')
        )
    if not isinstance(parsed.data, dict):
        found = "a list" if isinstance(parsed.data, list) else "a single value"
        raise ConfigError(
            _sentence(
                file,
                parsed.lines.get((), 1),
                f"the file holds {found} at the top.\n  want sections: agent, environment, rewards, training, logging",
            )
        )
    document = Document(file, parsed.data, parsed.lines, parsed.texts, notes)
    halves = list(half_characters(parsed.data))
    if halves:
        raise ConfigError(
            *(_sentence(file, document.line(place), f"{shown_place(place)} {HALF_CHARACTER}") for place in halves)
        )
    return document


def _sentence(file: FilePath, line: int | None, message: str) -> str:
    where = f"{file.name}, line {line}" if line else file.name
    return f"config error in {where}: {message}"


def _read_text(file: FilePath) -> str:
    if not file.is_file():
        raise ConfigError(_missing(file))
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                _sentence(
                    file,
                    None,
                    f"the file has {size:,} bytes; a config has at most {MAX_BYTES:,}.\n"
                    "  scenarios belong in a file of their own: environment.scenarios_file",
                )
            )
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(_sentence(file, None, f"cannot read it: {error.strerror}")) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            _sentence(
                file,
                content.count(b"\n", 0, error.start) + 1,
                f"not a text file (byte 0x{content[error.start]:02x} is not UTF-8).\n  save it as UTF-8 text",
            )
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(_sentence(file, line, "not a text file (it has zero bytes).\n  save it as UTF-8 text"))
    return text


def _missing(file: FilePath) -> str:
    full = file.expanduser().absolute()
    if full.is_dir():
        folder, what = full, f"{full} is a folder, not a config file."
    else:
        folder, what = full.parent, f"there is no file {full}."
    if not folder.is_dir():
        return f"config error: {what}\n  the folder {folder} does not exist either"
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml", ".json"))
    if not found:
        return f"config error: {what}\n  {folder} holds no *.yaml or *.json file"
    listed = ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
    return f"config error: {what}\n  {folder} holds: {listed}"


def _parse_yaml(file: FilePath, text: str, notes: list[str]) -> ParsedYaml:
    try:
        return _lift_from_items(file, parse_yaml(text), notes)
    except YamlProblem as problem:
        lifted = _lift_from_list(text)
        if lifted is None:
            raise ConfigError(_sentence(file, problem.line, str(problem))) from None
    cleaned, line, key = lifted
    try:
        parsed = parse_yaml(cleaned)
    except YamlProblem as problem:
        last = len(text.splitlines())
        raise ConfigError(_sentence(file, min(problem.line, last), str(problem))) from None
    # The key was moved to the end of the text: everything else kept its line.
    parsed.lines[(key,)] = line
    notes.append(_lifted_note(file, line, key))
    return parsed


def _lifted_note(file: FilePath, line: int, key: str) -> str:
    return (
        f"{file.name}, line {line}: {key} stands inside the list of rewards; it was read as a key beside the list. "
        "Write `rewards: {combination_method: ..., functions: [...]}` to be exact."
    )


def _lift_from_list(text: str) -> tuple[str, int, str] | None:
    """Move a `combination_method:` that stands between the dashes of `rewards:` to the end of the text.

    A mapping key at the indentation of a list's dashes is not YAML, yet it is how the complete example of the
    documents is written. Lines keep their numbers.

    Returns:
        The text without that key, the key's line and its name; None where there is nothing to move.
    """
    lines = text.splitlines()
    inside, dashes = False, ""
    for number, line in enumerate(lines):
        if re.match(r"[^\s#]", line):
            inside = line.startswith("rewards:")
        if not inside:
            continue
        if match := re.match(r"(\s+)- ", line):
            dashes = dashes or match[1]
        elif dashes and (match := re.match(rf"{dashes}({'|'.join(_LIST_KEYS)})\s*:(.*)$", line)):
            key, value = match[1], match[2]
            lines[number] = ""
            return "\n".join([*lines, f"{key}:{value}"]) + "\n", number + 1, key
    return None


def _lift_from_items(file: FilePath, parsed: ParsedYaml, notes: list[str]) -> ParsedYaml:
    """Take a `- combination_method: average` item out of the list of rewards."""
    rewards = parsed.data.get("rewards") if isinstance(parsed.data, dict) else None
    if not isinstance(rewards, list) or not rewards or not isinstance(rewards[-1], dict):
        return parsed
    last = len(rewards) - 1
    for key in _LIST_KEYS:
        if list(rewards[last]) == [key] and key not in parsed.data:
            line = parsed.lines[("rewards", last, key)]
            parsed.data[key] = rewards.pop()[key]
            parsed.lines[(key,)] = line
            notes.append(_lifted_note(file, line, key))
            break
    return parsed


def _parse_json(file: FilePath, text: str) -> ParsedYaml:
    """JSON by the standard parser, and the lines of its keys by the YAML parser, which reads a superset.

    Two parsers, because YAML's messages about JSON mislead and its surrogate pairs differ.
    """
    if not text.strip():
        return ParsedYaml(None)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(_sentence(file, error.lineno, f"not valid JSON: {error.msg}")) from None
    except RecursionError:
        raise ConfigError(_sentence(file, None, "values are nested too deep")) from None
    except ValueError:
        raise ConfigError(_sentence(file, *too_long_number(text))) from None
    try:
        # Outside of strings, where JSON forbids it anyway, a tab is only white space.
        parsed = parse_yaml(text.replace("\t", " "))
    except YamlProblem as problem:
        raise ConfigError(_sentence(file, problem.line, str(problem))) from None
    parsed.data = data
    return parsed
