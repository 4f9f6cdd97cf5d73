"""A rubric of plain rules: named checks with points.

Invariant: every check is met or not by words that can be pointed at. There are no regular expressions in it, so none
can be slow; code comes in by import path from the operator's own config, never from data.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dotted import import_dotted
from ..errors import ConfigError
from ..facts import states_fact
from ..tool_calls import TOOL, replies
from .base import Context, RewardFunction, RewardResult, Turns, checked_number, named
from .function import accepts
from .text import length, words

EXAMPLE = '{"contains": "refund", "points": 2}'
PLACES = ("any", "every", "last", "first")
_TEXTS = ("contains", "lacks", "states")
_WORDS = ("max_words", "min_words")
RULES = (*_TEXTS, "states_topic", *_WORDS, "asks_question", "calls_tool", "predicate")
"""What a check can look for."""
_EVERY = ("lacks", *_WORDS)


@dataclass(frozen=True)
class _Check:
    """One line of a rubric: a rule, what it takes, which replies it is asked about, and its points."""

    name: str
    rule: str
    value: Any
    place: str
    points: float
    predicate: Callable[..., Any] | None = None


class RubricReward(RewardFunction):
    """Share of a rubric's points that a conversation earns.

    A check is a mapping with one rule, and optionally `points` (1), `in` (which replies) and `name`:

    | rule | met when |
    |---|---|
    | `contains: text or [texts]` | one of the texts stands in a reply, whole words in a row, letter case aside |
    | `lacks: text or [texts]` | none of them does, in every reply |
    | `states: wording or [wordings]` | a reply states it, spelled in any of the ways that `core.facts` forgives |
    | `states_topic: topic` | a reply states the scenario's fact of that name |
    | `max_words: n`, `min_words: n` | every reply is that short, or long |
    | `asks_question: true` | a reply asks the user something |
    | `calls_tool: name` | a call of that tool gave a value |
    | `predicate: my_rules.polite` | the function says so: it takes `(turns, context)` and may be async |

    `in` is any, every, last or first reply. A conversation without a word from the assistant earns nothing, whatever
    the rules say that forbid words.

    It sees the outer signs that its rules name and nothing else: a reply that holds the right words in a senseless
    order passes, and so do "no refund" for `contains: refund` and a text that only ends in "?" for `asks_question`.
    Points for `contains` invite lists of keywords; pair them with `max_words`, or use `CorrectnessReward`. An episode
    whose scenario lacks the fact of a `states_topic` is unscored.

    Args:
        checks: at least one.
        weight: see `RewardFunction`.
        name: see `RewardFunction`.
        base_dir: the config file's folder, where predicates are looked for first.

    Raises:
        ConfigError: every problem of every check, one line each.
    """

    maximum = 1.0

    def __init__(
        self,
        checks: Sequence[Mapping[str, Any]],
        weight: float = 1.0,
        name: str = "",
        *,
        base_dir: str | Path | None = None,
    ) -> None:
        super().__init__(weight, name)
        if isinstance(checks, str | Mapping) or not isinstance(checks, Sequence) or not checks:
            raise ConfigError(f"checks is {checks!r:.60}; it must be a list of at least one check such as {EXAMPLE}")
        self._checks: list[_Check] = []
        problems: list[str] = []
        for index, check in enumerate(checks):
            try:
                self._checks.append(_checked(check, f"checks[{index}]", base_dir))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(*problems)
        self._given = [dict(check) for check in checks]

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The rubric as a config has it; a predicate given as a function is named."""
        return [
            {**check, "predicate": f"{found.__module__}.{found.__qualname__}"}
            if callable(found := check.get("predicate"))
            else check
            for check in self._given
        ]

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Ask every check."""
        context = context or {}
        heard = [turn.content for turn in replies(turns)]
        missing = [check.value for check in self._checks if _lacks_topic(check, context)]
        if missing:
            return RewardResult.unscored(f"scenario {context.get('scenario_id', '?')!r} has no fact {missing[0]!r}")
        if not any(words(text) for text in heard):
            return RewardResult(0.0, dict.fromkeys(self._names(), 0.0))
        met = [await _is_met(check, heard, turns, context) for check in self._checks]
        total = sum(check.points for check in self._checks)
        earned = sum(check.points for check, good in zip(self._checks, met, strict=True) if good)
        return RewardResult(earned / total, dict(zip(self._names(), map(float, met), strict=True)))

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check that the facts it asks for exist.

        Raises:
            ConfigError: no scenario has the fact of a `states_topic`.
        """
        for check in self._checks:
            if scenarios and all(_lacks_topic(check, scenario) for scenario in scenarios):
                raise ConfigError(f"the reward {self.label!r} asks for the fact {check.value!r}, which no scenario has")

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names the scenarios whose episodes will be left unscored."""
        silent = [s.get("id", "?") for s in scenarios if any(_lacks_topic(check, s) for check in self._checks)]
        if not silent:
            return []
        return [
            f"reward {self.label!r} cannot judge {len(silent)} of {len(scenarios)} scenarios (first: {silent[0]!r}), "
            "which lack a fact that it asks for: their episodes are unscored and teach nothing"
        ]

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards; one whose predicate no import finds is not rebuildable."""
        entry = super().to_config()
        functions = [check["predicate"] for check in self._given if callable(check.get("predicate"))]
        return entry if all(named(one) is one for one in functions) else {**entry, "rebuildable": False}

    def _names(self) -> list[str]:
        names: list[str] = []
        for check in self._checks:
            copies = sum(1 for taken in names if taken == check.name or taken.startswith(f"{check.name} #"))
            names.append(f"{check.name} #{copies + 1}" if copies else check.name)
        return names


def _checked(check: Mapping[str, Any], where: str, base_dir: str | Path | None) -> _Check:
    if not isinstance(check, Mapping):
        raise ConfigError(f"{where} is {check!r:.60}; it must be a mapping such as {EXAMPLE}")
    unknown = [key for key in check if key not in (*RULES, "points", "in", "name")]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), [*RULES, "points", "in", "name"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}{hint} Rules: {', '.join(RULES)}")
    rules = [key for key in check if key in RULES]
    if len(rules) != 1:
        raise ConfigError(f"{where} has {len(rules)} rules; it must have one of {', '.join(RULES)}")
    rule, value = rules[0], check[rules[0]]
    points = checked_number(check.get("points", 1.0), "points", where)
    place = check.get("in", "every" if rule in _EVERY else "any")
    if points <= 0:
        raise ConfigError(f"{where}.points is {points:g}; it must be above 0 (`lacks` is for what must not be said)")
    if place not in PLACES:
        raise ConfigError(f"{where}.in is {place!r}; it must be one of {', '.join(PLACES)}")
    if "in" in check and rule in ("calls_tool", "predicate"):
        raise ConfigError(f"{where}.in is for rules about replies; {rule} looks at the whole conversation")
    predicate = None
    if rule == "predicate":
        predicate = value if callable(value) else import_dotted(value, base_dir, what=f"{where}.predicate")
        if not callable(predicate) or isinstance(predicate, type):
            raise ConfigError(f"{where}.predicate is {value!r}, which is no function")
        if not accepts(predicate, "turns", "context"):
            raise ConfigError(
                f"{where}.predicate is {value!r}, which cannot be called with (turns, context); define "
                "`def my_rule(turns, context) -> bool`"
            )
    else:
        _check_value(rule, value, where)
    shown = getattr(value, "__name__", value)
    return _Check(str(check.get("name") or f"{rule}: {shown}"), rule, value, place, points, predicate)


def _check_value(rule: str, value: Any, where: str) -> None:
    if rule in _TEXTS:
        texts = [value] if isinstance(value, str) else value
        good = isinstance(texts, list | tuple) and texts and all(isinstance(t, str) and words(t) for t in texts)
        wanted = "a text with a word in it, or a list of these"
    elif rule in _WORDS:
        good, wanted = isinstance(value, int) and not isinstance(value, bool) and value >= 1, "a whole number from 1 on"
    elif rule == "asks_question":
        good, wanted = value is True, "true"
    else:
        good, wanted = isinstance(value, str) and bool(value.strip()), "a name"
    if not good:
        raise ConfigError(f"{where}.{rule} is {value!r}; it must be {wanted}")


async def _is_met(check: _Check, heard: list[str], turns: Turns, context: Context) -> bool:
    if check.predicate is not None:
        verdict = check.predicate(turns, context)
        verdict = await verdict if inspect.isawaitable(verdict) else verdict
        if not isinstance(verdict, bool):
            raise TypeError(f"the predicate {check.name!r} returned {verdict!r}; it must return True or False")
        return verdict
    if check.rule == "calls_tool":
        results = [turn.tool_result for turn in turns if turn.role == TOOL and turn.tool_result is not None]
        return any(result.ok and result.name == check.value for result in results)
    chosen = {"last": heard[-1:], "first": heard[:1]}.get(check.place, heard)
    met = [_holds(check, text, context) for text in chosen]
    return all(met) if check.place == "every" else any(met)


def _holds(check: _Check, text: str, context: Context) -> bool:
    match check.rule:
        case "contains":
            return any(_stands_in(wanted, text) for wanted in _list(check.value))
        case "lacks":
            return not any(_stands_in(unwanted, text) for unwanted in _list(check.value))
        case "states":
            return states_fact(text, check.value)
        case "states_topic":
            return states_fact(text, context["facts"][check.value])
        case "max_words":
            return length(text) <= int(check.value)
        case "min_words":
            return length(text) >= int(check.value)
        case _:
            return any(words(part) for part in text.replace("\uff1f", "?").split("?")[:-1])


def _lacks_topic(check: _Check, known: Mapping[str, Any]) -> bool:
    return check.rule == "states_topic" and check.value not in (known.get("facts") or {})


def _list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _stands_in(wanted: str, text: str) -> bool:
    return f" {' '.join(words(wanted))} " in f" {' '.join(words(text))} "
