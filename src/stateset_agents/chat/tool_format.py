"""How a model calls tools: what it is told, and how its calls are read.

Invariant: reading is strict. A reply either has no call, or it has calls each of which is a JSON object with a name and
arguments, or it has something that tries to be a call and is told so as a `MalformedCall`. Nothing is repaired or
guessed: what the model learns is the form itself.

A reply stays in the conversation as the text that was sampled, calls included, and templates paste it as it is. So the
tokens that are trained are the tokens that were sampled, whatever a template would make of structured calls.

Three forms. Which one a model has is read off its chat template:

* `hermes`: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them, among other text (Qwen and
  other ChatML models);
* `llama`: the reply is one object `{"name": ..., "parameters": {...}}` (Llama 3.1 and later);
* `json`: a line of the reply is an object `{"name": ..., "arguments": {...}}`; for models whose template knows no
  tools: the system prompt tells them.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.data_file import half_characters, unique_keys
from ..core.tool_calls import ToolCall

ToolFormatName = Literal["auto", "hermes", "llama", "json"]
Definition = Mapping[str, Any]
MAX_DEPTH = 32
"""Levels of a call's arguments."""


@dataclass(frozen=True)
class MalformedCall:
    """Something that was meant as a call; `problem` is for the model that wrote it."""

    problem: str


Calls = list[ToolCall | MalformedCall]


class ToolFormat(ABC):
    """One form of calling tools.

    Attributes:
        name: as in a config.
        native: the chat template shows the tools; otherwise `instructions` go into the system prompt.
    """

    name: str
    native: bool = True

    @abstractmethod
    def calls(self, reply: str) -> Calls:
        """The calls in a reply, in order; empty for a reply without any."""

    @abstractmethod
    def write(self, calls: Sequence[ToolCall]) -> str:
        """The text with which a model makes these calls: what `calls` reads back.

        Raises:
            ValueError: the form has no place for so many.
        """

    @abstractmethod
    def speech(self, text: str) -> str:
        """The beginning of `text` that is certainly no part of a call, for showing a reply while it comes."""

    def instructions(self, tools: Sequence[Definition]) -> str:
        """What a model is told whose template does not show tools."""
        return ""


class Hermes(ToolFormat):
    """`<tool_call>` blocks among other text."""

    name = "hermes"
    _BLOCK = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)

    def calls(self, reply: str) -> Calls:
        """See `ToolFormat.calls`. What a model thinks aloud before it answers is no call."""
        found: Calls = []
        for block in self._BLOCK.finditer(reply[_after_thought(reply) :]):
            if block.group(2) != "</tool_call>":
                found.append(MalformedCall("a <tool_call> has no </tool_call>"))
            else:
                found.append(_call(block.group(1), "arguments"))
        return found

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat.write`."""
        return "\n".join(f"<tool_call>\n{_written(call, 'arguments')}\n</tool_call>" for call in calls)

    def speech(self, text: str) -> str:
        """See `ToolFormat.speech`."""
        return _before(text, "<tool_call>")


class Llama(ToolFormat):
    """The whole reply is one object."""

    name = "llama"

    def calls(self, reply: str) -> Calls:
        """See `ToolFormat.calls`. What a model thinks aloud before it answers is no call."""
        text = reply[_after_thought(reply) :].strip().removeprefix("<|python_tag|>").strip()
        return [_call(text, "parameters")] if text.startswith("{") else []

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat.write`."""
        if len(calls) != 1:
            raise ValueError(f"this model makes one call in a turn, not {len(calls)}")
        return _written(calls[0], "parameters")

    def speech(self, text: str) -> str:
        """See `ToolFormat.speech`."""
        begun = text.lstrip()
        return "" if not begun or begun[0] in "{<" else text


class JsonLines(ToolFormat):
    """Lines of the reply that are objects."""

    name = "json"
    native = False

    def calls(self, reply: str) -> Calls:
        """See `ToolFormat.calls`."""
        lines = [line.strip() for line in reply[_after_thought(reply) :].split("\n")]
        return [_call(line, "arguments") for line in lines if line.startswith("{")]

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat.write`."""
        return "\n".join(_written(call, "arguments") for call in calls)

    def speech(self, text: str) -> str:
        """See `ToolFormat.speech`."""
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        safe = next((at for at, line in enumerate(lines) if line.lstrip().startswith("{")), len(lines))
        while safe and not lines[safe - 1].strip():  # a call may follow, and what stands before it is no speech
            safe -= 1
        return "".join(lines[:safe])

    def instructions(self, tools: Sequence[Definition]) -> str:
        """See `ToolFormat.instructions`: a line for each tool, short because small models read it."""
        example = '{"name": "tool", "arguments": {"parameter": "value"}}'
        return "\n".join([f"Tools. To call one, answer only {example}", *map(_line, tools)])


FORMATS: dict[str, ToolFormat] = {form.name: form for form in (Hermes(), Llama(), JsonLines())}


def format_of_template(template: str, *, renders_tools: bool) -> ToolFormat:
    """The form that a chat template teaches.

    Args:
        template: its source.
        renders_tools: whether it shows tool definitions.
    """
    # Qwen3-Coder and GLM write something else than JSON between the same tags.
    others = "<function=" in template or "<arg_key>" in template
    if renders_tools and "<tool_call>" in template and "arguments" in template and not others:
        return FORMATS["hermes"]
    if renders_tools and '"parameters"' in template and "ipython" in template:
        return FORMATS["llama"]
    return FORMATS["json"]


def _call(text: str, key: str) -> ToolCall | MalformedCall:
    shape = f'{{"name": "tool", "{key}": {{...}}}}'
    try:
        value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite_float)
    except RecursionError:
        return MalformedCall("the call is nested too deep")
    except ValueError as error:
        return MalformedCall(f"the call is no valid JSON ({getattr(error, 'msg', error)}); it must be {shape}")
    if not isinstance(value, dict) or set(value) != {"name", key}:
        return MalformedCall(f"a call must be {shape} and nothing else")
    name, arguments = value["name"], value[key]
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return MalformedCall(f"a call must be {shape}: a text and an object")
    if _too_deep(arguments):
        return MalformedCall("the call is nested too deep")
    if any(True for _ in half_characters(value)):
        return MalformedCall("the call holds half of a character")
    return ToolCall(name, arguments)


def _too_deep(value: Any) -> bool:
    """Whether values are nested deeper than what passes a call on can bear."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in layer if isinstance(one, (dict, list))]
        layer = [part for parts in inner for part in parts]
    return bool(layer)


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _written(call: ToolCall, key: str) -> str:
    text = json.dumps({"name": call.name, key: dict(call.arguments)}, ensure_ascii=False)
    return text.replace("<", "\\u003c")  # no text of an argument is taken for the end of a call or of a thought


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _after_thought(reply: str) -> int:
    """Where a reply begins after what the model thought aloud."""
    end = reply.rfind("</think>")
    if end >= 0:
        return end + len("</think>")
    return len(reply) if reply.lstrip().startswith("<think>") else 0


def _before(text: str, tag: str) -> str:
    """The text up to the tag, or up to what may become it."""
    at = text.find(tag)
    if at >= 0:
        return text[:at]
    tail = next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)
    return text[: len(text) - tail]


def _line(tool: Definition) -> str:
    """`find_order(order_id: string, detail?: "short" | "long"): Where an order is. order_id: as on the bill.`."""
    function = tool["function"]
    schema = function["parameters"]
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    shown = [f"{name}{'' if name in required else '?'}{_kind(one)}" for name, one in properties.items()]
    described_ones = {name: one for name, one in properties.items() if isinstance(one, Mapping)}
    about = [f"{name}: {one['description']}" for name, one in described_ones.items() if one.get("description")]
    described = [part for part in (function["description"], *about) if part]
    return f"{function['name']}({', '.join(shown)})" + (f": {' '.join(described)}" if described else "")


def _kind(schema: Any) -> str:
    if not isinstance(schema, Mapping):  # true and false are schemas too
        return ""
    if "enum" in schema:
        return ": " + " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in ("object", "array"):
        return f": {kind}"
    rest = {key: value for key, value in schema.items() if key not in ("description", "default")}
    return ": " + json.dumps(rest, ensure_ascii=False) if rest else ""
