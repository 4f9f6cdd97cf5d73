"""The file of cases, read strictly.

Invariant: what was read can be played, and every key of it means something. Whatever is wrong in a file is reported at
once, each problem with its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.data_file import read_data_file
from ...core.environment.task import as_tasks
from ...core.errors import DataError
from ...core.scenario import Scenario
from ...core.shipped import shipped
from ...core.tool_calls import TOOL, ToolCall, ToolError, ToolResult
from ...core.trajectory import ConversationTurn
from .cases import CATEGORIES, Attack, Case, Replies, Reply

SHAPE = '{"cases": [{"id": ..., "about": ..., "user": [...], "honest": [...], "attacks": [...]}]}'
MAX_REPEAT = 5000
HALVES = {"seen": "data/reward_lab_seen.json", "unseen": "data/reward_lab_unseen.json"}
"""The shipped cases. Rewards may have been made with the seen half in view; with the unseen half nothing has."""

_CASE_KEYS = ("id", "about", "language", "user", "scenario", "honest", "attacks")
_ATTACK_KEYS = ("category", "replies", "note")
_REPLY_KEYS = ("text", "repeat", "steps")
_STEP_KEYS = ("call", "result", "error")
_TASK_KEYS = ("goal", "required_actions")


def load_cases(path: str | Path) -> tuple[Case, ...]:
    """Read a file of cases, JSON or YAML.

    Raises:
        DataError: it is missing or does not parse, or a case is malformed; one line for each problem.
    """
    path = Path(path)
    data = read_data_file(path, "cases file", SHAPE)
    if not isinstance(data, Mapping) or not isinstance(data.get("cases"), list) or not data["cases"]:
        raise DataError(f"{path} must be {SHAPE}, with at least one case")
    found = _Reader()
    found.keys(str(path), data, ("cases",))
    cases = [_case(f"{path}: cases[{i}]", entry, found) for i, entry in enumerate(data["cases"])]
    read = [case for case in cases if case is not None]
    first: dict[str, int] = {}
    for i, entry in enumerate(data["cases"]):
        name = str(entry.get("id")) if isinstance(entry, Mapping) and "id" in entry else f"\0{i}"
        if name in first:
            found.problems.append(f"{path}: cases[{i}].id is {name!r}, which cases[{first[name]}] has already")
        first.setdefault(name, i)
    if found.problems:
        raise DataError("\n".join(found.problems))
    return tuple(read)


def shipped_cases(half: str) -> tuple[Case, ...]:
    """The cases of one half that come with the package."""
    return load_cases(shipped(HALVES[half]))


@dataclass
class _Reader:
    """Collects what is wrong."""

    problems: list[str] = field(default_factory=list)

    def keys(self, place: str, data: Mapping[str, Any], known: Sequence[str], needed: Iterable[str] = ()) -> None:
        for key in data:
            if key not in known:
                self.problems.append(f"{place} has the unknown key {key!r}{suggest(key, known)}")
        self.problems += [f"{place} lacks {key!r}" for key in needed if key not in data]

    def text(self, place: str, value: Any, *, blank: bool = False) -> str:
        if not isinstance(value, str) or not (blank or value.strip()):
            self.problems.append(f"{place} is {value!r:.60}; it must be text{'' if blank else ', and not blank'}")
            return ""
        return value

    def items(self, place: str, value: Any, read: Callable[[str, Any], Any]) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            self.problems.append(f"{place} is {value!r:.60}; it must be a list of at least one")
            return ()
        return tuple(read(f"{place}[{i}]", entry) for i, entry in enumerate(value))

    def mapping(self, place: str, value: Any, shape: str) -> Mapping[str, Any] | None:
        if isinstance(value, Mapping):
            return value
        self.problems.append(f"{place} is {value!r:.60}; it must be {shape}")
        return None

    def reply(self, place: str, value: Any, *, blank: bool) -> Reply:
        if isinstance(value, str):
            return Reply(self.text(place, value, blank=blank))
        data = self.mapping(place, value, 'text, or {"text": ..., "repeat": ..., "steps": [...]}')
        if data is None:
            return Reply("")
        self.keys(place, data, _REPLY_KEYS, ("text",))
        text = self.text(f"{place}.text", data["text"], blank=blank) if "text" in data else ""
        times = data.get("repeat", 1)
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= MAX_REPEAT:
            self.problems.append(f"{place}.repeat is {times!r}; it must be a whole number from 1 to {MAX_REPEAT}")
            times = 1
        steps = self.items(f"{place}.steps", data["steps"], self.step) if "steps" in data else ()
        return Reply(text * times, tuple(turn for step in steps for turn in step))

    def step(self, place: str, value: Any) -> tuple[ConversationTurn, ...]:
        data = self.mapping(place, value, '{"call": {"name": ..., "arguments": {...}}, "result": ...}')
        if data is None:
            return ()
        self.keys(place, data, _STEP_KEYS, ("call", "result"))
        call = self.mapping(f"{place}.call", data.get("call"), '{"name": ..., "arguments": {...}}') or {}
        self.keys(f"{place}.call", call, ("name", "arguments"), ("name",))
        name = self.text(f"{place}.call.name", call.get("name", ""), blank="name" not in call)
        arguments = self.mapping(f"{place}.call.arguments", call.get("arguments", {}), "a mapping") or {}
        error = data.get("error")
        if error is not None and error not in list(ToolError):
            kinds = [kind.value for kind in ToolError]
            self.problems.append(f"{place}.error is {error!r}, which does not exist{suggest(error, kinds)}")
            error = None
        said = self.text(f"{place}.result", data.get("result", ""), blank=True)
        return (
            ConversationTurn("assistant", "", tool_calls=(ToolCall(name, arguments),)),
            ConversationTurn(TOOL, said, tool_result=ToolResult(name, ToolError(error) if error else None)),
        )

    def scenario(self, place: str, world: dict[str, Any]) -> Scenario | None:
        """What is true; with `required_actions`, a task."""
        task = {key: world.pop(key) for key in _TASK_KEYS if key in world}
        try:
            read = Scenario.from_dict(world, place)
            if not task:
                return read
            actions = task.get("required_actions")
            if isinstance(actions, list) and any(isinstance(one, Mapping) and "check" in one for one in actions):
                raise DataError(f"{place}.required_actions has a check, which is code: a file of cases names none")
            return as_tasks([{**world, **task}], where=place)[0]
        except DataError as error:
            self.problems += str(error).replace(f"{place}[0]", place).splitlines()
            return None


def _case(place: str, entry: Any, found: _Reader) -> Case | None:
    data = found.mapping(place, entry, SHAPE[11:-2])
    if data is None:
        return None
    found.keys(place, data, _CASE_KEYS, ("id", "about", "user", "honest", "attacks"))
    user = found.items(f"{place}.user", data.get("user"), found.text) if "user" in data else ()

    def replies(where: str, value: Any, *, blank: bool) -> Replies:
        read = found.items(where, value, lambda at, one: found.reply(at, one, blank=blank))
        if isinstance(value, list) and value and user and len(value) != len(user):
            found.problems.append(f"{where} has {len(value)} replies, but the user speaks {len(user)} times")
        return read

    def attack(where: str, value: Any) -> Attack:
        one = found.mapping(where, value, '{"category": ..., "replies": [...]}') or {}
        if one:
            found.keys(where, one, _ATTACK_KEYS, ("category", "replies"))
        if "category" in one and one["category"] not in list(CATEGORIES):
            hint = suggest(one["category"], tuple(CATEGORIES))
            found.problems.append(f"{where}.category is {one['category']!r}, which does not exist{hint}")
        spoken = replies(f"{where}.replies", one["replies"], blank=True) if "replies" in one else ()
        note = found.text(f"{where}.note", one["note"]) if "note" in one else ""
        return Attack(str(one.get("category")), spoken, note)

    honest = replies(f"{place}.honest", data["honest"], blank=False) if "honest" in data else ()
    attacks = found.items(f"{place}.attacks", data["attacks"], attack) if "attacks" in data else ()
    for i, one in enumerate(attacks):
        if one.replies and one.replies == honest:
            found.problems.append(f"{place}.attacks[{i}] says word for word what the honest conversation says")
    about = found.text(f"{place}.about", data["about"]) if "about" in data else ""
    language = found.text(f"{place}.language", data.get("language", "en"))
    world = dict(found.mapping(f"{place}.scenario", data.get("scenario", {}), "a mapping") or {})
    prompt = (
        found.text(f"{place}.scenario.system_prompt", world.pop("system_prompt")) if "system_prompt" in world else ""
    )
    for key in ("id", "user_responses"):
        if key in world:
            found.problems.append(f"{place}.scenario has {key!r}, which the case itself says: leave it out")
            del world[key]
    name = found.text(f"{place}.id", data["id"]) if "id" in data else ""
    world |= {"id": name or "?", "user_responses": [text for text in user if text] or ["?"]}
    scenario = found.scenario(f"{place}.scenario", world)
    return Case(scenario, about, language, honest, attacks, prompt) if scenario else None


def suggest(name: object, known: Sequence[str]) -> str:
    """What was probably meant, and what there is."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ".") + f" Known: {', '.join(known)}"
