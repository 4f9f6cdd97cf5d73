"""From a config to a reward.

Invariant: every key of an entry is used or refused. Where no reward is named there is one stated default, which is
announced and never pays for length.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..dotted import import_dotted
from ..errors import ConfigError
from .base import RewardFunction, checked_name, checked_number
from .composite import COMBINATION_METHODS, CompositeReward, as_reward
from .conciseness import ConcisenessReward
from .engagement import EngagementReward
from .group import GroupReward
from .helpfulness import HelpfulnessReward
from .kinds import KINDS, PACKAGE
from .safety import SafetyReward

_EXAMPLE = '{"type": "helpfulness", "weight": 0.4}'
DEFAULT_NOTICE = (
    "no reward was given: using the default, 0.5 helpfulness + 0.2 safety + 0.2 conciseness + 0.1 engagement "
    "(helpfulness looks for the scenarios' facts where they have any). Give rewards of your own to train for more"
)


def default_reward() -> RewardFunction:
    """The reward that is used when none is given. Whoever uses it announces `DEFAULT_NOTICE`."""
    return CompositeReward(
        [HelpfulnessReward(0.5), SafetyReward(0.2), ConcisenessReward(0.2), EngagementReward(0.1)], name="default"
    )


def load_reward(
    dotted: str, base_dir: str | Path | None = None, *, weight: float | None = None, what: str = "module"
) -> RewardFunction:
    """Import a custom reward: a decorated function, a plain one, a `RewardFunction` class or an instance of one.

    Args:
        dotted: for example "my_rewards.politeness_reward".
        base_dir: the config file's folder, searched before the installed packages.
        weight: replaces the reward's own weight.
        what: the place it was named in, for messages.

    Raises:
        ConfigError: it cannot be imported or is not a reward.
    """
    found = import_dotted(dotted, base_dir, what=what)
    try:
        reward = as_reward(found)
    except ConfigError as error:
        raise ConfigError(f'{what} is "{dotted}": {error}') from None
    reward = copy.copy(reward)  # the module's own keeps its weight and name
    if weight is not None:
        reward.weight = checked_number(weight, "weight", reward.label)
    return reward


def build_rewards(
    specs: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    combination_method: str = "weighted_sum",
    base_dir: str | Path | None = None,
) -> RewardFunction:
    """Make the reward of a config's `rewards`.

    Args:
        specs: entries such as `{"type": "helpfulness", "weight": 0.4}`, with the options that `kinds.KINDS` has for the
            type; files are relative to `base_dir`, else to the working directory. An entry with `functions` is a
            composite of its own. What a reward's `to_config` gives is accepted whole, in place of the list.
        combination_method: one of `COMBINATION_METHODS`.
        base_dir: the config file's folder.

    Raises:
        ConfigError: every problem of every entry, one line each.
        DataError: a ground-truth file is missing or malformed.
    """
    if isinstance(specs, Mapping):
        return (_build if "type" in specs else _composite)(specs, "rewards", base_dir)
    return _combined(specs, combination_method, "rewards", base_dir)


def _combined(specs: Any, combination_method: object, where: str, base_dir: str | Path | None) -> RewardFunction:
    if isinstance(specs, str | bytes) or not isinstance(specs, Sequence) or not specs:
        raise ConfigError(f"{where} is {specs!r:.80}; it must be a list with at least one entry such as {_EXAMPLE}")
    problems: list[str] = []
    rewards: list[RewardFunction] = []
    for index, spec in enumerate(specs):
        place = f"{where}[{index}]"
        try:
            rewards.append(_build(spec, place, base_dir))
        except ConfigError as error:
            problems += [text if text.startswith(place) else f"{place}: {text}" for text in error.problems]
    if combination_method not in COMBINATION_METHODS:
        problems.append(
            f"combination_method is {combination_method!r}, which does not exist"
            + _suggest(combination_method, COMBINATION_METHODS)
        )
    if problems:
        raise ConfigError(*problems)
    if len(rewards) == 1 and isinstance(rewards[0], GroupReward):
        return rewards[0]  # it judges groups as a whole and is no part of a sum
    return CompositeReward(rewards, str(combination_method))


def _composite(spec: Mapping[str, Any], place: str, base_dir: str | Path | None) -> RewardFunction:
    allowed = ("functions", "combination_method", "weight", "name")
    unknown = [key for key in spec if key not in allowed]
    if unknown:
        raise ConfigError(*(f"{place} has the unknown key {key!r}{_suggest(key, allowed)}" for key in unknown))
    method = spec.get("combination_method", "weighted_sum")
    reward = _combined(spec.get("functions"), method, f"{place}.functions", base_dir)
    if isinstance(reward, GroupReward) and place != "rewards":
        raise ConfigError(f"{place}: {reward.label} judges groups as a whole and cannot be combined: use it alone")
    reward.weight = checked_number(spec.get("weight", 1.0), "weight", reward.label)
    reward.name = checked_name(spec.get("name", ""), reward.label)
    return reward


def _build(spec: Mapping[str, Any], place: str, base_dir: str | Path | None) -> RewardFunction:
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{place} is {spec!r:.80}; it must be a mapping such as {_EXAMPLE}")
    if "functions" in spec:
        return _composite(spec, place, base_dir)
    options = {key: value for key, value in spec.items() if value is not None}
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{place}.type is {kind!r}, which does not exist{_suggest(kind, list(KINDS))}")
    known = KINDS[kind].options
    allowed = ("weight", "name", *known, *(("rebuildable",) if KINDS[kind].imports or kind == "custom" else ()))
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ConfigError(*(f"{place} has the unknown key {key!r}{_suggest(key, allowed)}" for key in unknown))
    if options.pop("rebuildable", True) is False:
        raise ConfigError(
            f"{place} names {options.get('module', kind)}, which cannot be made again from its name alone: it has "
            "settings of its own, or is no module's own function or class. Make it in code"
        )
    if kind == "custom":
        return _custom(options, place, base_dir)
    missing = [key for key, option in known.items() if option.needed and key not in options]
    if missing:
        needs = ", ".join(known[key].example for key in missing)
        raise ConfigError(f'{place} is of type "{kind}" and needs "{needs}"')
    objections = {key: option.objection(options[key]) for key, option in known.items() if key in options}
    if any(objections.values()):
        raise ConfigError(*(f"{place}.{key} {objection}" for key, objection in objections.items() if objection))
    for key in [key for key, option in known.items() if option.file and key in options]:
        options[key] = _beside(options[key], base_dir)
    if KINDS[kind].imports:
        options["base_dir"] = base_dir
    found = import_dotted(f"{PACKAGE}.{KINDS[kind].address}", what=f"{place}.type")
    make = getattr(found, KINDS[kind].maker) if KINDS[kind].maker else found
    reward: RewardFunction = make(**options)
    return reward


def _custom(options: dict[str, Any], place: str, base_dir: str | Path | None) -> RewardFunction:
    if "module" not in options:
        raise ConfigError(f'{place} is of type "custom" and needs "module: my_rewards.my_reward"')
    reward = load_reward(options["module"], base_dir, weight=options.get("weight"), what=f"{place}.module")
    if "name" in options:
        reward.name = checked_name(options["name"], reward.label)
    return reward


def _beside(file: str | Path, base_dir: str | Path | None) -> Path:
    """A data file beside the config, or as the path says."""
    beside = Path(base_dir or ".") / file
    return beside if beside.exists() else Path(file)


def _suggest(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ".") + f" Known: {', '.join(known)}"
