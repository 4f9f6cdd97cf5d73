"""YAML as the person who wrote it means it: YAML 1.2 scalars, every key with its line, nothing executable.

Invariant: a scalar becomes what it looks like to a person. `no`, `on`, `12:30` and `2024-01-15` stay text, `5e-6` is a
number. Tags are refused, duplicate keys are refused, and an alias cannot expand beyond a bound.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_NODES = 20_000
MAX_DEPTH = 40

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class YamlProblem(Exception):
    """A text that is not acceptable YAML: a line (from 1), what is wrong, and how to fix it."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own registry, filled below

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise YamlProblem(event.start_mark.line + 1, f"the tag {tag} is not allowed: write the plain value")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class StrictDumper(yaml.SafeDumper):
    """Writes YAML that this loader and any YAML 1.1 loader read back as the same values."""


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
):
    for _class in (_StrictLoader, StrictDumper):
        _class.add_implicit_resolver(_tag, _pattern, _first)


class ParsedYaml:
    """The plain values of one YAML document, with the line of each.

    Attributes:
        data: dicts, lists, text, numbers, booleans and None.
        lines: path of every key and list item to its line, counted from 1.
        texts: path of every unquoted scalar to its spelling in the file.
        problems: (line, message) of what parses but is not acceptable, such as a duplicate key.
    """

    def __init__(self, root: yaml.Node | None, max_nodes: int = MAX_NODES) -> None:
        self._max_nodes = max_nodes
        self.lines: dict[Path, int] = {}
        self.texts: dict[Path, str] = {}
        self.problems: list[tuple[int, str]] = []
        self._count = 0
        self.data: Any = None if root is None else self._build(root, (), ())

    def _build(self, node: yaml.Node, path: Path, inside: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self._count += 1
        self.lines.setdefault(path, line)
        if id(node) in inside:
            raise YamlProblem(line, "an alias refers to the value that contains it")
        if len(inside) >= MAX_DEPTH:
            raise YamlProblem(line, f"values are nested more than {MAX_DEPTH} deep")
        if self._count > self._max_nodes:
            raise YamlProblem(line, f"more than {self._max_nodes:,} values (do aliases multiply them?)")
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, i), inside) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, inside: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append((line, "a list or mapping cannot be a key"))
                continue
            key = str(key_node.value)
            if key == "<<":
                self.problems.append((line, 'merge keys ("<<") are not supported: write the keys out'))
            elif key in first:
                where = ".".join(map(str, (*path, key)))
                self.problems.append((line, f"{where} is given twice (first in line {first[key]}): keep one of them"))
            else:
                first[key] = line
                self.lines[(*path, key)] = line
                result[key] = self._build(value_node, (*path, key), inside)
        return result

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        kind = node.tag.rpartition(":")[2]
        if kind != "str":
            self.texts[path] = text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            # A number too long for int() is text; the field that receives it says what it wants.
            return int(text) if len(text) <= 20 else text
        if kind == "float":
            lowered = text.lower()
            return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
        return text


def parse_yaml(text: str, *, max_nodes: int = MAX_NODES) -> ParsedYaml:
    """Read one YAML document of at most `max_nodes` values.

    Raises:
        YamlProblem: the text does not parse, has tags, more than one document, or is nested or multiplied too far.
    """
    try:
        # The loader class derives from SafeLoader and composes nodes only: nothing is constructed by tag.
        root = yaml.compose(text, Loader=_StrictLoader)
        return ParsedYaml(root, max_nodes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "it does not parse"
        if "but found another document" in problem:
            problem = 'a file holds one document: remove the second "---"'
        elif r"'\t'" in problem:
            problem = "a tab character cannot indent YAML: use spaces"
        raise YamlProblem(mark.line + 1 if mark else 1, f"not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = text[error.position]
        raise YamlProblem(line, f"not valid YAML: the character {character!r} is not allowed in a text file") from None
    except RecursionError:
        raise YamlProblem(1, f"values are nested more than {MAX_DEPTH} deep") from None
