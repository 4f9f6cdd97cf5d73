"""Tasks: conversations in which the agent has something to get done.

Invariant: an action once done stays done, and what counts as done is decided by what the agent said or what its tools
did, never by what it says it did to a tool that failed. The end is judged once, by one criterion, and the reward, the
report and the success rate all see that judgement.

A task is a scenario with `required_actions`. An action is done by

* `keywords`: a reply has one of them, as whole words. Easy to fool, and said so;
* `tool` (and `arguments`): a call of this tool succeeded, with at least these arguments;
* `check`: a function of `(turns, context)` says so; in a tasks file, its dotted name.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..data_file import read_data_file
from ..dotted import import_dotted
from ..errors import ConfigError, DataError
from ..scenario import Scenario
from ..tool_calls import spoken
from ..tools import Tool
from ..trajectory import ConversationTurn
from ..users import ScriptedUser, User
from .actions import action_problems, called, never_called, said
from .base import Environment, EnvironmentState, EpisodeStatus
from .conversation import ConversationEnvironment

Judge = Callable[[Sequence[ConversationTurn], Mapping[str, Any]], Any]
"""A function of the turns so far and of what is known of the task: `completed_actions`, `required_actions`, `task`,
`facts`, `information_provided`. May be async."""

GO_ON = "Please go on."
"""What a user says who has no script, until the task is done."""

_OWN_KEYS = ("description", "goal", "required_actions")


def task_completion_function(turns: Sequence[ConversationTurn], context: Mapping[str, Any]) -> bool:
    """Whether every required action is done: the criterion that holds where no other is given."""
    return set(context["required_actions"]) <= set(context["completed_actions"])


CRITERIA: dict[str, Judge] = {"task_completion_function": task_completion_function}
"""Criteria that a config names by a bare name."""


class TaskEnvironment(ConversationEnvironment):
    """A conversation that is over when the task is done.

    It ends as COMPLETED when the criterion holds, as FAILED when the user has nothing left to say before, and as
    TIMEOUT after `max_turns` replies. Step rewards are 0: `TaskCompletionReward` pays for what was done.

    Args:
        tasks: mappings as in a tasks file: the keys of a scenario, `description`, `goal` and `required_actions`.
        success_criteria: a function of `(turns, context)`, or its name: "task_completion_function", or a dotted one.
        max_turns: replies after which a conversation is cut.
        persona: who the user is, in words, for a user that plays a role.
        user: who answers the agent; by default the task's script, and where it has none somebody who asks to go on.
        base_dir: folder that dotted names are looked up in first.

    Raises:
        DataError: no tasks, or some that are wrong.
        ConfigError: the criterion or a check is no function of `(turns, context)`, or another argument is not what it
            should be.
    """

    def __init__(
        self,
        tasks: Sequence[Mapping[str, Any] | Scenario],
        success_criteria: Judge | str = task_completion_function,
        max_turns: int = 10,
        persona: str | None = None,
        user: User | None = None,
        *,
        base_dir: str | Path | None = None,
    ) -> None:
        if base_dir is not None and not isinstance(base_dir, (str, Path)):
            raise ConfigError(f"base_dir is {base_dir!r:.60}; it must be a folder's path, or None")
        self._base_dir = base_dir
        self._functions: dict[str, Judge] = {}
        scenarios = [self._registered(task) for task in as_tasks(tasks)]
        super().__init__(scenarios, max_turns, persona, user if user is not None else ScriptedOrPatient())
        self.criterion = _criterion(success_criteria, base_dir)

    async def reset(self, scenario: Scenario | Mapping[str, Any] | None = None) -> EnvironmentState:
        """Begin a task; the state's context holds what there is to do."""
        state = await super().reset(scenario)
        chosen = self._chosen(scenario)
        actions = chosen.extra.get("required_actions", ())
        state.context |= {
            "task": {key: chosen.extra[key] for key in ("description", "goal") if key in chosen.extra},
            "required_actions": [action["name"] for action in actions],
            "completed_actions": [],
            "facts": dict(chosen.facts),
            "information_provided": chosen.topics,
            "task_done": False,
        }
        return state

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """See what was done, then let the user answer unless the task is done."""
        after, response, reward, done = await super().step(state, action)
        if after.status is EpisodeStatus.COMPLETED and not after.context["task_done"]:
            after.status = EpisodeStatus.FAILED
        return after, response, reward, done

    def read_scenarios(self, path: str | Path) -> list[Scenario]:
        """The tasks of a file.

        Raises:
            DataError: see `load_tasks`.
        """
        return load_tasks(path)

    def require_tools(self, tools: Sequence[Tool]) -> None:
        """See `Environment.require_tools`."""
        if type(self).episode_tools is not Environment.episode_tools:
            return  # what it will offer is known only once an episode has begun
        offered = {tool.name: tool for tool in tools}
        problems = [
            f"task {task.id!r}: the action {action['name']!r} can never be done: {problem}"
            for task in self.episode_scenarios()
            for action in task.extra.get("required_actions", ())
            if "tool" in action and not {"keywords", "check"} & action.keys()
            for problem in never_called(action, offered)
        ]
        if problems:
            raise DataError("\n".join(problems))

    def success(self, turns: Sequence[ConversationTurn], state: EnvironmentState) -> bool | None:
        """Whether the criterion held."""
        return bool(state.context.get("task_done"))

    @property
    def criterion_name(self) -> str:
        """The criterion as a config names it; of a function of somebody's own, where it was defined."""
        for name, judge in CRITERIA.items():
            if judge is self.criterion:
                return name
        origin = self.criterion
        name = getattr(origin, "__qualname__", type(origin).__qualname__)
        return f"{getattr(origin, '__module__', None)}.{name}"

    def unused(self) -> list[tuple[str, str]]:
        """A persona, where nobody plays it."""
        if not isinstance(self.user, ScriptedOrPatient):
            return super().unused()
        return [("persona", "a task's own user says its lines as they are written")] if self.persona else []

    def notices(self) -> list[str]:
        """Says so when actions are judged by keywords or there are none, and who plays the user."""
        found = [*super().notices()]
        tasks = self.episode_scenarios()
        idle = [task.id for task in tasks if not task.extra.get("required_actions")]
        if idle and self.criterion is task_completion_function:
            found.append(
                f"{len(idle)} of {len(tasks)} tasks (first: {idle[0]!r}) have no required_actions, so that any reply "
                "does them; give them some, or success_criteria of your own"
            )
        loose = [
            f"{task.id}: {action['name']}"
            for task in tasks
            for action in task.extra.get("required_actions", ())
            if action.get("keywords")
        ]
        if loose:
            found.append(
                f"{len(loose)} required actions (first: {loose[0]!r}) are done as soon as a keyword is said, which is "
                "easy to fool; name a tool or a check where there is one"
            )
        return found

    async def _is_over(self, state: EnvironmentState) -> bool:
        """Note what the agent's turn has done, and judge."""
        scenario, done = state.scenario, state.context["completed_actions"]
        for action in scenario.extra.get("required_actions", ()) if scenario else ():
            if scenario and action["name"] not in done and await self._is_done(scenario, action, state):
                done.append(action["name"])
        state.context["task_done"] = bool(await _answer(self.criterion, state.history, state.context))
        return bool(state.context["task_done"])

    async def _is_done(self, task: Scenario, action: Mapping[str, Any], state: EnvironmentState) -> bool:
        """Whether the agent's latest move has done it."""
        turns = state.history
        begun = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=-1)
        reply = spoken(turns[-1]) if turns[-1].role == "assistant" else ""  # none where the move was cut off
        if said(action.get("keywords", ()), reply) or called(action, turns[begun + 1 :]):
            return True
        check = self._check_of(task, action)
        return check is not None and bool(await _answer(check, turns, state.context))

    def _registered(self, task: Scenario) -> Scenario:
        """The task with its checks by name, so that it can be written down."""
        actions = [dict(action) for action in task.extra.get("required_actions", ())]
        for action in actions:
            check = action.get("check")
            if callable(check):
                action["check"] = f"{check.__module__}.{getattr(check, '__qualname__', type(check).__qualname__)}"
                what = f"the check of {action['name']!r}"
                self._functions[f"{task.id}: {action['name']}"] = _function(check, self._base_dir, what)
            self._check_of(task, action)
        return replace(task, extra={**task.extra, "required_actions": actions}) if actions else task

    def _check_of(self, task: Scenario, action: Mapping[str, Any]) -> Judge | None:
        """The function that an action names, if it names one."""
        if "check" not in action:
            return None
        given = self._functions.get(f"{task.id}: {action['name']}")
        return given or _function(action["check"], self._base_dir, f"the check of {action['name']!r}")


class ScriptedOrPatient:
    """Says the task's script; one without a script says what the task is, and then asks to go on."""

    _script = ScriptedUser()

    def describe(self, scenario: Scenario | None = None) -> dict[str, Any]:
        """As results record it."""
        return {"type": "scripted"}

    async def opening(self, scenario: Scenario, persona: str | None = None) -> str:
        """The first line of the script, or the task."""
        if scenario.user_responses:
            return scenario.user_responses[0]
        task = [str(scenario.extra[key]) for key in ("description", "goal") if key in scenario.extra]
        return f"I need your help. {'. '.join(task)}."

    async def reply(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> str | None:
        """The next line of the script; None after the last."""
        return await self._script.reply(scenario, turns, persona) if scenario.user_responses else GO_ON


def as_tasks(entries: Sequence[Mapping[str, Any] | Scenario], *, where: str = "tasks") -> list[Scenario]:
    """Tasks as scenarios whose `extra` holds description, goal and required actions.

    Raises:
        DataError: every problem of every entry, one line each.
    """
    if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Sequence):
        raise DataError(f"{where} is {entries!r:.60}; it must be a list of tasks")
    if not entries:
        raise DataError(f"{where} is empty; at least one task is needed")
    tasks: list[Scenario] = []
    problems: list[str] = []
    ids: set[str] = set()
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        try:
            task = entry if isinstance(entry, Scenario) else _task(entry, place, f"task-{index}")
        except DataError as error:
            problems.append(str(error))
            continue
        problems += action_problems(place, task.extra.get("required_actions", ()))
        if task.id in ids:
            problems.append(f"{place}.id is {task.id!r}, which another task has already; give each its own")
        ids.add(task.id)
        tasks.append(task)
    if problems:
        raise DataError("\n".join(problems))
    return tasks


def load_tasks(path: str | Path) -> list[Scenario]:
    """Read a tasks file: JSON or YAML, `{"tasks": [...]}` or the list alone.

    Raises:
        DataError: the file is missing, does not parse, or holds a task that is wrong.
    """
    path = Path(path)
    data = read_data_file(path, "tasks file", '{"tasks": [...]}')
    if isinstance(data, Mapping):
        unknown = [key for key in data if key != "tasks"]
        if unknown:
            raise DataError(f"{path} has the unknown key {unknown[0]!r}. Known: tasks")
        data = data.get("tasks")
    if not isinstance(data, list):
        raise DataError(f'{path} holds no list of tasks; it must be {{"tasks": [...]}} or a list of them')
    return as_tasks(data, where=f"{path}: tasks")


def _task(entry: Mapping[str, Any], place: str, default_id: str) -> Scenario:
    if not isinstance(entry, Mapping):
        raise DataError(
            f"{place} is {entry!r:.60}; a task is a mapping like {{'goal': ..., 'required_actions': [...]}}"
        )
    own = {key: entry[key] for key in _OWN_KEYS if entry.get(key) is not None}
    rest = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    known = [*_OWN_KEYS, *(one.name for one in fields(Scenario) if one.name != "extra")]
    for key in rest:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise DataError(f"{place} has the unknown key {key!r}{hint} Known: {', '.join(known)}")
    for key in ("description", "goal"):
        if key in own and (not isinstance(own[key], str) or not own[key].strip()):
            raise DataError(f"{place}.{key} is {own[key]!r}; it must be text that is not empty")
    scenario = Scenario.from_dict(rest, place, default_id)
    if not scenario.user_responses and not {"description", "goal"} & own.keys():
        raise DataError(f"{place} says nothing of what there is to do; give it a description, a goal or user_responses")
    goal = {"user_goal": own["goal"]} if "goal" in own else {}
    return replace(
        scenario,
        context=scenario.context or own.get("description"),
        initial_state={**goal, **scenario.initial_state},
        extra=own,
    )


def _criterion(given: Judge | str, base_dir: str | Path | None) -> Judge:
    if isinstance(given, str) and given in CRITERIA:
        return CRITERIA[given]
    if isinstance(given, str) and "." not in given:
        raise ConfigError(
            f"success_criteria is {given!r}, and there is no built-in one of that name. Known: {', '.join(CRITERIA)}; "
            "a function of your own is named with its module, for example my_tasks.is_done"
        )
    return _function(given, base_dir, "success_criteria")


def _function(given: Judge | str, base_dir: str | Path | None, what: str) -> Judge:
    found: Any = import_dotted(given, base_dir, what=what) if isinstance(given, str) else given
    if not callable(found):
        raise ConfigError(f"{what} is {given!r:.60}; it must be a function of (turns, context)")
    try:
        inspect.signature(found).bind((), {})
    except ValueError:  # of a function written in C, which says nothing of its parameters
        pass
    except TypeError as error:
        raise ConfigError(f"{what} is {given!r:.60}, which cannot be called with (turns, context): {error}") from None
    judge: Judge = found
    return judge


async def _answer(judge: Judge, turns: Sequence[ConversationTurn], context: Mapping[str, Any]) -> Any:
    told = judge(turns, context)
    return await told if inspect.isawaitable(told) else told
