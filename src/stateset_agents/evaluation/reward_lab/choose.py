"""The rewards that the lab is asked about, by their names.

Invariant: what is known by name is what a config can name; no list of rewards is kept here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ConfigError, StatesetError
from ...core.reward import KINDS, CompositeReward, RewardFunction, build_rewards, default_reward, load_reward
from .reading import suggest

DEFAULT = "default"
"""Name of the reward that is used where none is given."""


@dataclass(frozen=True)
class Candidate:
    """A reward to look at; or, where it cannot be made, why."""

    name: str
    reward: RewardFunction | None
    problem: str = ""


def every_built_in() -> list[Candidate]:
    """All rewards that a config can name and the default one; those that need settings say so."""
    found = []
    for name in known_names():
        try:
            found.append(Candidate(name, built_in(name)))
        except (StatesetError, ImportError) as error:
            found.append(Candidate(name, None, str(error)))
    return found


def named(name: str, base_dir: str | Path) -> Candidate:
    """A built-in reward, with settings or without, or one of the user's own by its dotted path.

    Args:
        name: for example "helpfulness", '{"type": "conciseness", "optimal_length": 40}' (an entry of a config's
            rewards) or "my_rewards.politeness_reward".
        base_dir: searched for the user's own before the installed packages.

    Raises:
        ConfigError: there is none, or it cannot be made.
    """
    if name.lstrip().startswith("{"):
        try:
            entry = json.loads(name)
        except ValueError as error:
            raise ConfigError(f"{name} is no JSON: {error}") from None
        reward = _alone(build_rewards([entry], base_dir=base_dir))
        return Candidate(reward.name or str(entry.get("type", reward.label)), reward)
    if "." in name:
        reward = load_reward(name, base_dir, what="REWARD")
        return Candidate(reward.label, reward)
    if name not in known_names():
        hint = suggest(name, known_names())
        raise ConfigError(
            f"there is no reward {name!r}{hint}; or give the dotted path of your own (my_rewards.my_reward) or a config"
        )
    try:
        return Candidate(name, built_in(name))
    except ConfigError as error:
        hint = f'  give its settings as an entry of a config\'s rewards: \'{{"type": "{name}", ...}}\''
        raise ConfigError(f"{error}\n{hint}") from None


def known_names() -> list[str]:
    """Of the built-in rewards."""
    return [*(name for name, kind in KINDS.items() if kind.address), DEFAULT]


def built_in(name: str) -> RewardFunction:
    """The reward of that name, with the settings that it has where a config says nothing.

    Raises:
        ConfigError: it needs settings.
    """
    if name == DEFAULT:
        return default_reward()
    reward = build_rewards([{"type": name}])
    return _alone(reward)


def parts_of(reward: RewardFunction) -> list[Candidate]:
    """The rewards of a config: each by itself, and what they make together."""
    if not isinstance(reward, CompositeReward):
        return [Candidate(reward.label, reward)]
    parts = [Candidate(name, part) for name, part in reward.rewards.items()]
    return parts if len(parts) == 1 else [*parts, Candidate("all together", reward)]


def _alone(reward: RewardFunction) -> RewardFunction:
    parts: Sequence[RewardFunction] = [*reward.rewards.values()] if isinstance(reward, CompositeReward) else [reward]
    return parts[0]
