"""Tools: functions that an agent may call, and what their arguments must look like.

Invariant: a function runs only with arguments that fit its parameters, by name and strictly ("3" is no number). What
does not fit never reaches it; the model is told what was wrong instead.

A parameter schema is read from the function's signature and docstring, or given as JSON Schema.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .dotted import import_dotted
from .errors import ConfigError
from .json_schema import checked_schema, violations

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_KEYS = ("name", "description", "function", "parameters", "sequential")

BUILT_IN = {"calculator_function": "stateset_agents.core.calculator.calculator"}
"""Tools that a config names by a bare name."""

Check = Callable[[Mapping[str, Any]], dict[str, Any]]


class BadArguments(Exception):
    """The arguments of a call do not fit. The text is for the model that made it."""


@dataclass(frozen=True)
class Tool:
    """A function that an agent may call.

    Attributes:
        name: by which the model calls it.
        description: when to use it, for the model.
        parameters: JSON Schema of the arguments: an object with a property for each.
        function: sync (it runs in a thread of its own) or async; gets the arguments by name.
        sequential: it changes something: the calls of its turn that were made before it end first, and those after it
            wait.
        check: raises `BadArguments`, or returns what the function gets.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any] = field(repr=False)
    check: Check = field(repr=False, compare=False)
    sequential: bool = False

    @classmethod
    def of(cls, given: object, place: str = "the tool") -> Tool:
        """A tool from whatever describes one.

        Args:
            given: a `Tool`, a function, or a mapping with `function` and, optional, `name`, `description`,
                `parameters` (JSON Schema) and `sequential`.
            place: where it was given, for messages.

        Raises:
            ConfigError: it is none, its name is none, or its parameters cannot be described.
        """
        if isinstance(given, Tool):
            return given
        spec: Mapping[str, Any] = given if isinstance(given, Mapping) else {"function": given}
        unknown = [key for key in spec if key not in _KEYS]
        if unknown:
            raise ConfigError(f"{place} has the unknown key {unknown[0]!r}. Known: {', '.join(_KEYS)}")
        function = spec.get("function")
        if not callable(function):
            raise ConfigError(
                f"{place} is {given!r:.100}; it must be a function, or "
                "{'name': ..., 'description': ..., 'function': f}"
            )
        name = spec.get("name") or getattr(function, "__name__", type(function).__name__)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{place} is called {name!r}; a name has letters, digits, _ and -, for example 'find_order'"
            )
        where = f"{place} ({name})"
        described, schema, check = _from_signature(function, name, where, given_schema=spec.get("parameters"))
        description = spec.get("description") or described
        if not isinstance(spec.get("sequential", False), bool):
            raise ConfigError(f"{where}: sequential is {spec['sequential']!r}; it must be True or False")
        if not isinstance(description, str):
            raise ConfigError(f"{where}: its description is {description!r}; it must be text")
        return cls(name, description, schema, function, check, spec.get("sequential", False))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        """A copy with what the function belongs to. Where Python cannot copy that, this one tool is shared."""
        attempt = dict(memo)
        try:
            function = copy.deepcopy(self.function, attempt)
        except Exception as error:  # whatever a foreign __deepcopy__ raises
            _tell_shared(self, error)
            return self
        memo.update(attempt)
        memo.setdefault(id(memo), []).append(attempt)  # what a memo holds it finds by id: no id may be given again
        return replace(self, function=function)

    def definition(self) -> dict[str, Any]:
        """The form in which chat templates and chat completion servers take tools."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


_TOLD: set[tuple[str, str]] = set()


def _tell_shared(tool: Tool, error: Exception) -> None:
    """A state that all conversations write to is a surprise, once."""
    told = (tool.name, repr(type(getattr(tool.function, "__self__", tool.function))))
    if told not in _TOLD:
        _TOLD.add(told)
        logger.warning(
            "the tool %r cannot be copied (%s), so all conversations share it and what it belongs to; if that is "
            "meant, give its owner a __deepcopy__ that returns itself",
            tool.name,
            error,
        )


def as_tools(given: Iterable[object], place: str = "tools") -> list[Tool]:
    """Tools with different names.

    Raises:
        ConfigError: every problem, one line each.
    """
    if isinstance(given, (str, bytes, Mapping, set, frozenset)) or not isinstance(given, Iterable):
        raise ConfigError(f"{place} is {given!r:.60}; it must be a list of functions or of mappings with a `function`")
    tools: dict[str, Tool] = {}
    problems: list[str] = []
    for index, one in enumerate(given):
        try:
            tool = Tool.of(one, f"{place}[{index}]")
        except ConfigError as error:
            problems += error.problems
            continue
        if tool.name in tools:
            problems.append(
                f"{place}[{index}] is called {tool.name!r}, and so is another tool: each needs its own name"
            )
        tools[tool.name] = tool
    if problems:
        raise ConfigError(*problems)
    return list(tools.values())


def load_tool(spec: Mapping[str, Any], base_dir: Any = None, place: str = "tools[0]") -> Tool:
    """The tool of a config's entry, whose function is named: a built-in by its bare name, or a dotted path.

    Args:
        spec: `name`, `description`, `function`.
        base_dir: the config file's folder.
        place: of the entry, for messages.

    Raises:
        ConfigError: the function is not found, or is no tool.
    """
    named = str(spec.get("function"))
    if "." not in named and named not in BUILT_IN:
        raise ConfigError(
            f"{place}.function is {named!r}, and there is no built-in tool of that name. Known: {', '.join(BUILT_IN)}; "
            "a function of your own is named with its module, for example my_tools.find_order"
        )
    path = BUILT_IN.get(named, named)
    found = import_dotted(path, None if named in BUILT_IN else base_dir, what=f"{place}.function")
    return Tool.of({**spec, "function": found}, place)


def _from_signature(
    function: Callable[..., Any], name: str, where: str, given_schema: object
) -> tuple[str, Mapping[str, Any], Check]:
    """Description, parameter schema and check of a function."""
    documented = _documentation(function)
    if given_schema is not None:
        schema, check = _given(given_schema, where)
        _require_taken(schema, function, where)
        return documented[0], schema, check
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # an annotation that is text is evaluated by `inspect`, and may be any nonsense
        raise ConfigError(
            f"{where}: its signature cannot be read ({type(error).__name__}: {error}); mend its "
            "annotations, or give its JSON Schema as `parameters`"
        ) from None
    return documented[0], *_inferred(signature, name, where, documented[1])


def _documentation(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each of its parameters."""
    import docstring_parser

    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    text = " ".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    return text, {one.arg_name: " ".join((one.description or "").split()) for one in parsed.params}


def _inferred(
    signature: inspect.Signature, name: str, where: str, about: Mapping[str, str]
) -> tuple[Mapping[str, Any], Check]:
    from pydantic import ConfigDict, Field, ValidationError, create_model

    fields: dict[str, Any] = {}
    free = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            free = True
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"{where}: its parameter {parameter.name!r} has no name that a call could give; make it an ordinary "
                "one, or give the tool's JSON Schema as `parameters`"
            )
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        # Fields are numbered: a parameter may have a name that pydantic keeps for itself (schema, json, _x).
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"p{len(fields)}"] = (
            kind,
            Field(default, alias=parameter.name, description=about.get(parameter.name) or None),
        )
    config = ConfigDict(extra="allow" if free else "forbid", arbitrary_types_allowed=False)
    try:
        model = create_model(name, __config__=config, **fields)
        schema = _plain(model.model_json_schema())
    except Exception as error:  # pydantic and its core have several ways to say that they know no such type
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"{where}: its parameters cannot be described ({why}); annotate them with types that JSON has, or give the "
            "tool's JSON Schema as `parameters`"
        ) from None

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            made = model.model_validate_json(json.dumps(dict(arguments)), strict=True)
        except ValidationError as error:
            told = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()]
            raise BadArguments("; ".join(told)) from None
        known = {info.alias: getattr(made, key) for key, info in model.model_fields.items() if info.alias}
        return {**{key: value for key, value in known.items() if key in arguments}, **(made.model_extra or {})}

    return schema, check


def _require_taken(schema: Mapping[str, Any], function: Callable[..., Any], where: str) -> None:
    """Refuse a given schema that lets a call name arguments which the function does not take."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function written in C, which says nothing of its parameters
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    takes = [parameter.name for parameter in parameters if parameter.kind in named]
    unknown = [key for key in schema.get("properties", {}) if key not in takes]
    if unknown:
        raise ConfigError(
            f"{where}: its `parameters` name {unknown[0]!r}, which the function does not take; it takes "
            f"{', '.join(takes) or 'nothing by name'}"
        )


def _given(schema: object, where: str) -> tuple[Mapping[str, Any], Check]:
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise ConfigError(f"{where}: its `parameters` are {schema!r:.60}; they must be the JSON Schema of an object")
    schema = {"type": "object", **schema}
    validator = checked_schema(schema, f"{where}: the schema of its `parameters`")

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        found = violations(validator, dict(arguments))
        if found:
            raise BadArguments("; ".join(found))
        return dict(arguments)

    return schema, check


def _plain(schema: Any) -> Any:
    """The schema without the titles that pydantic adds."""
    if isinstance(schema, dict):
        properties = {key: _plain(value) for key, value in schema.get("properties", {}).items()}
        rest = {key: _plain(value) for key, value in schema.items() if key not in ("title", "properties")}
        return {**rest, "properties": properties} if "properties" in schema else rest
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema
