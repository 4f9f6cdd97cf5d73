"""The required actions of a task: what may be asked for, and when it is done.

Invariant: an action that no agent could do is refused before anything is played: one without a way to be done, without
words to say, or, once the agent is known, of a tool that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..facts import fact_tokens
from ..json_schema import checked_schema, violations
from ..tools import Tool
from ..trajectory import ConversationTurn

KEYS = ("name", "keywords", "tool", "arguments", "check")
_OF_EACH_ARGUMENT = ("$schema", "$defs", "definitions", "type", "properties", "additionalProperties")
"""What a tool's schema says of an argument whichever others there are: an action need not name them all."""


def action_problems(place: str, actions: Any) -> list[str]:
    """What is wrong with the `required_actions` of a task, each with its place."""
    if isinstance(actions, (str, Mapping)) or not isinstance(actions, Sequence):
        return [f"{place}.required_actions is {actions!r:.60}; it must be a list of {{'name': ..., 'keywords': [...]}}"]
    problems: list[str] = []
    names: set[str] = set()
    for index, action in enumerate(actions):
        where = f"{place}.required_actions[{index}]"
        if not isinstance(action, Mapping) or not isinstance(action.get("name"), str) or not action["name"].strip():
            problems.append(f"{where} is {action!r:.60}; it must be {{'name': ..., 'keywords': [...]}}")
            continue
        problems += [
            f"{where} has the unknown key {key!r}. Known: {', '.join(KEYS)}" for key in action if key not in KEYS
        ]
        if action["name"] in names:
            problems.append(f"{where}.name is {action['name']!r}, which another action has already")
        names.add(action["name"])
        if not {"keywords", "tool", "check"} & action.keys():
            problems.append(f"{where} says not when it is done; give it keywords: [...], a tool or a check")
        words = action.get("keywords", [])
        if isinstance(words, str) or not isinstance(words, Sequence) or not all(_has_words(word) for word in words):
            problems.append(f"{where}.keywords is {words!r:.60}; it must be a list of words")
        elif "keywords" in action and not words:
            problems.append(f"{where}.keywords is empty, so that no reply has one of them; give it at least one word")
        if "tool" in action and not (isinstance(action["tool"], str) and action["tool"].strip()):
            problems.append(f"{where}.tool is {action['tool']!r:.60}; it must be the name of a tool")
        if "arguments" in action and ("tool" not in action or not isinstance(action["arguments"], Mapping)):
            problems.append(f"{where}.arguments is {action['arguments']!r:.60}; it must be a mapping, beside a tool")
        if "check" in action and not callable(action["check"]) and not isinstance(action["check"], str):
            problems.append(f"{where}.check is {action['check']!r:.60}; it must be a function or its dotted name")
    return problems


def _has_words(text: Any) -> bool:
    return isinstance(text, str) and bool(fact_tokens(text))


def said(keywords: Sequence[str], text: str) -> bool:
    """Whether a text has one of the keywords, as whole words."""
    words = f" {' '.join(fact_tokens(text))} "
    return any(f" {' '.join(fact_tokens(keyword))} " in words for keyword in keywords)


def called(action: Mapping[str, Any], steps: Sequence[ConversationTurn]) -> bool:
    """Whether a call of the action's tool, with its arguments, succeeded."""
    if "tool" not in action:
        return False
    wanted = action.get("arguments", {})
    for at, turn in enumerate(steps):
        if turn.role != "assistant":
            continue
        results = []
        for after in steps[at + 1 :]:
            if after.role == "assistant":
                break
            results.append(after.tool_result)
        made = [result for result in results if result is not None and result.name]
        for call, result in zip(turn.tool_calls, made, strict=False):
            if result.ok and call.name == action["tool"] and _holds(call.arguments, wanted):
                return True
    return False


def never_called(action: Mapping[str, Any], offered: Mapping[str, Tool]) -> list[str]:
    """Why no call can do the action."""
    tool = offered.get(action["tool"])
    if tool is None:
        known = ", ".join(offered) or "(none)"
        return [f"there is no tool {action['tool']!r}. The agent's: {known}"]
    some = {key: value for key, value in tool.parameters.items() if key in _OF_EACH_ARGUMENT}
    wrong = violations(checked_schema(some, f"the schema of {tool.name!r}"), dict(action.get("arguments", {})))
    return [f"{tool.name!r} does not take its arguments: {'; '.join(wrong)}"] if wrong else []


def _holds(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in given and _same(given[key], value) for key, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is no 1, while 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return len(one) == len(other) and _holds(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
