"""Scenarios: what one conversation is about, and the file that holds many of them.

Invariant: every key of a scenario means something. One that this version does not know is refused with a suggestion,
so that a typo never silently turns a criterion off. A file is checked whole: all its problems are reported at once.

Who sees what: the user and the rewards see `context`, `topic` and `initial_state`; the agent sees `agent_context`
(appended to its system prompt) and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .data_file import read_data_file
from .errors import DataError
from .facts import unmatchable_facts

CRITERIA = ("information_provided", "user_satisfaction")


@dataclass(frozen=True)
class Scenario:
    """One situation to hold a conversation in.

    Reads like the mapping that it came from (`scenario["topic"]`, `scenario.get("topic")`), so that an environment
    written against the file format works with it.

    Attributes:
        id: unique among the scenarios of a run.
        user_responses: what a scripted user says, in order; the first one opens the conversation.
        type, topic, context: what it is about, in words, for the user, the rewards and reports.
        agent_context: what the agent is told beyond its system prompt.
        facts: topic to the fact that the agent should state about it: one wording, or several of which any will do.
        ground_truth: the right answer, for rewards that compare with one: text, or a list of accepted texts.
        initial_state: where the user starts (`user_goal`, `user_knowledge`).
        success_criteria: `information_provided` (topics that the agent has to cover), `user_satisfaction`.
        metadata: groups reports (`category`, `difficulty`); `expected_turns` bounds length scores.
        extra: keys that only a custom environment knows. Scenario files may not have any.
    """

    id: str
    user_responses: tuple[str, ...] = ()
    type: str | None = None
    topic: str | None = None
    context: str | None = None
    agent_context: str | None = None
    facts: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    ground_truth: str | tuple[str, ...] | None = None
    initial_state: Mapping[str, Any] = field(default_factory=dict)
    success_criteria: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """The topics that the agent has to cover; empty when the scenario states none."""
        return list(self.success_criteria.get("information_provided", ()))

    @property
    def expected_turns(self) -> int | None:
        """How many assistant turns a good conversation takes, where the scenario says so."""
        turns: int | None = self.metadata.get("expected_turns")
        return turns

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "scenario", default_id: str = "scenario-0", *, strict: bool = True
    ) -> Scenario:
        """Check one mapping of a scenarios file or of a `scenarios=[...]` argument.

        Args:
            data: the mapping.
            where: its place, for messages: "scenarios[3]" or "data/train.json: scenarios[3]".
            default_id: the id when it has none.
            strict: refuse keys that this version does not know; otherwise keep them in `extra`.

        Raises:
            DataError: one line for each problem, naming place, key, value and fix.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"{where} is {_kind(data)}; a scenario is a mapping like {{'user_responses': ['Hi!']}}")
        problems: list[str] = []
        known = [f.name for f in fields(cls) if f.name != "extra"]
        extra = {key: value for key, value in data.items() if key not in known}
        if strict:
            problems += [f"{where} has the unknown key {key!r}{_suggest(key, known)}" for key in extra]
        values = {key: value for key, value in data.items() if key in known and value is not None}
        identity = values.pop("id", default_id)
        if isinstance(identity, bool) or not isinstance(identity, (str, int)) or not str(identity).strip():
            problems.append(f"{where}.id is {identity!r}; give it a text, or leave it out")
        for key in ("type", "topic", "context", "agent_context"):
            if key in values and not isinstance(values[key], str):
                problems.append(f"{where}.{key} is {_kind(values[key])} ({values[key]!r}); it must be text")
        for key in ("facts", "initial_state", "success_criteria", "metadata"):
            if key in values and not isinstance(values[key], Mapping):
                problems.append(f"{where}.{key} is {_kind(values.pop(key))}; it must be a mapping")
        problems += _check_responses(where, values)
        problems += _check_facts(where, values)
        problems += _check_criteria(where, values)
        if problems:
            raise DataError("\n".join(problems))
        for key in ("user_responses", "ground_truth"):
            if isinstance(values.get(key), Sequence) and not isinstance(values[key], str):
                values[key] = tuple(values[key])
        return cls(id=str(identity), extra=extra, **values)

    def to_dict(self) -> dict[str, Any]:
        """JSON form with the keys that are set; `Scenario.from_dict(s.to_dict()) == s` for a scenario without extra."""
        data: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "extra" or value is None or value == () or value == {}:
                continue
            if isinstance(value, Mapping):
                value = dict(value)
            data[f.name] = list(value) if isinstance(value, tuple) else value
        return {**data, **self.extra}

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Like `dict.get`."""
        return self.to_dict().get(key, default)


def as_scenarios(entries: Iterable[Any], *, where: str = "scenarios", strict: bool = True) -> list[Scenario]:
    """Turn a list of mappings or `Scenario` objects into scenarios with unique ids.

    Raises:
        DataError: every problem of every entry, one line each.
    """
    if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Iterable):
        raise DataError(f"{where} is {_kind(entries)}; it must be a list of scenarios")
    scenarios: list[Scenario] = []
    problems: list[str] = []
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        try:
            scenario = (
                entry
                if isinstance(entry, Scenario)
                else Scenario.from_dict(entry, place, f"scenario-{index}", strict=strict)
            )
        except DataError as error:
            problems.append(str(error))
            continue
        if scenario.id in first:
            earlier = f"{where}[{first[scenario.id]}]"
            problems.append(f"{place}.id is {scenario.id!r}, which {earlier} has already; give each its own")
        first.setdefault(scenario.id, index)
        scenarios.append(scenario)
    if problems:
        raise DataError("\n".join(problems))
    return scenarios


def require_user_turns(scenarios: Sequence[Scenario], *, where: str = "scenarios") -> None:
    """Check that a scripted user has something to say.

    Raises:
        DataError: there is no scenario at all, or some have no `user_responses`.
    """
    if not scenarios:
        raise DataError(f"{where} is empty; at least one scenario is needed")
    silent = [
        f"{where}[{i}] (id {s.id!r}) has no user turns; add user_responses: [...], the first one opens the conversation"
        for i, s in enumerate(scenarios)
        if not s.user_responses
    ]
    if silent:
        raise DataError("\n".join(silent))


def load_scenarios(path: str | Path, *, user_turns: bool = True) -> list[Scenario]:
    """Read a scenarios file: JSON or YAML, `{"scenarios": [...]}` or the list alone.

    Args:
        path: the file.
        user_turns: whether each scenario must have `user_responses`; a user that a model plays needs none.

    Raises:
        DataError: the file is missing, unreadable, does not parse, or holds a scenario that is wrong. Names the file,
            the entry, and the line where parsing failed.
    """
    path = Path(path)
    data = read_data_file(path, "scenarios file", '{"scenarios": [...]}')
    if isinstance(data, Mapping):
        unknown = [key for key in data if key != "scenarios"]
        if unknown:
            raise DataError(f"{path} has the unknown key {unknown[0]!r}{_suggest(unknown[0], ['scenarios'])}")
        data = data.get("scenarios")
    if not isinstance(data, list):
        raise DataError(f'{path} holds {_kind(data)}; it must be {{"scenarios": [...]}} or a list of scenarios')
    where = f"{path}: scenarios"
    scenarios = as_scenarios(data, where=where)
    if user_turns:
        require_user_turns(scenarios, where=where)
    return scenarios


def _check_responses(where: str, values: Mapping[str, Any]) -> Iterable[str]:
    for key in ("user_responses", "ground_truth"):
        value = values.get(key)
        if value is None or (key == "ground_truth" and isinstance(value, str)):
            continue
        if isinstance(value, str) or not isinstance(value, Sequence):
            yield f"{where}.{key} is {_kind(value)} ({value!r}); it must be a list of texts"
            continue
        for i, text in enumerate(value):
            if not isinstance(text, str):
                yield f"{where}.{key}[{i}] is {_kind(text)} ({text!r}); it must be text, so put it in quotes"
            elif not text.strip():
                yield f"{where}.{key}[{i}] is empty; say something or leave it out"


def _check_facts(where: str, values: Mapping[str, Any]) -> Iterable[str]:
    for topic, fact in values.get("facts", {}).items():
        place = f"{where}.facts.{topic}"
        wordings = list(fact) if isinstance(fact, (list, tuple)) else [fact]
        if not wordings:
            yield f"{place} is an empty list; state the fact or leave the topic out"
        for wording in wordings:
            if not isinstance(wording, str):
                yield f"{place} holds {_kind(wording)} ({wording!r}); it must be text, so put it in quotes"
            elif unmatchable_facts({topic: wording}):
                yield f"{place} is {wording!r}, which no text can state; it needs a word or a number"


def _check_criteria(where: str, values: Mapping[str, Any]) -> Iterable[str]:
    criteria, facts = values.get("success_criteria", {}), values.get("facts", {})
    for key in criteria:
        if key not in CRITERIA:
            yield f"{where}.success_criteria has the unknown key {key!r}{_suggest(key, CRITERIA)}"
    topics = criteria.get("information_provided", [])
    if not isinstance(topics, (list, tuple)) or not all(isinstance(t, str) and t.strip() for t in topics):
        yield f"{where}.success_criteria.information_provided is {topics!r}; it must be a list of topics, each a text"
    elif facts:
        for topic in topics:
            if topic not in facts:
                yield (
                    f"{where}.success_criteria.information_provided asks for {topic!r}, for which facts has no entry"
                    f"{_suggest(topic, facts)}"
                )
    turns = values.get("metadata", {}).get("expected_turns")
    if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < 1):
        yield f"{where}.metadata.expected_turns is {turns!r}; it must be a whole number of assistant turns, at least 1"


def _suggest(name: object, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(known)}"


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
