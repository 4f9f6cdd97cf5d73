"""One entry of a config's `rewards`.

Invariant: an entry is checked by the section of its type, which has the keys of `core.rewards.kinds.KINDS` and no
others: the table is read here, never repeated.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, ModelWrapValidatorHandler, create_model, model_validator

from ..core.reward import KINDS, Option
from .fields import Dotted, Name, Real, Section, Whole

if TYPE_CHECKING:
    RewardName = str
else:
    RewardName = Literal[tuple(KINDS)]


class RewardSpec(Section):
    """One reward function and its weight; what else it may say follows from its type (`core.reward.KINDS`)."""

    type: RewardName = Field(description="kind of reward")
    weight: Annotated[Real, Field(ge=0)] | None = Field(
        default=None,
        description="null: the reward's own; a penalty is a reward that is negative",
    )
    name: Name | None = Field(default=None, description="how reports call it; null: its type")

    @classmethod
    def narrowed(cls, raw: object) -> builtins.type[Section]:
        """The section of the entry's type."""
        name = raw.get("type") if isinstance(raw, dict) else None
        return REWARD_SPECS.get(name, RewardSpec) if isinstance(name, str) else RewardSpec

    @classmethod
    def owner(cls, key: str) -> str | None:
        """The rewards that take a key."""
        owners = [f'"{name}"' for name, kind in KINDS.items() if key in kind.options]
        return f"{key} is for the reward {' and '.join(owners)}" if owners else None

    @property
    def files(self) -> dict[str, str]:
        """The data files that it names, by key."""
        named = {key: getattr(self, key) for key, option in KINDS[self.type].options.items() if option.file}
        return {key: file for key, file in named.items() if file is not None}

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_type(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> RewardSpec:
        if cls is not RewardSpec or not isinstance(data, dict):
            return handler(data)
        own = cls.narrowed(data)
        if own is RewardSpec:  # what else it says cannot be judged before its type is known
            return handler({key: value for key, value in data.items() if key in RewardSpec.model_fields})
        # What a custom reward weighs stands in its own code, which a config is read without.
        weighed = {"weight": 1.0} if data.get("weight") is None and data["type"] != "custom" else {}
        return cast("RewardSpec", own.model_validate({**data, **weighed}))

    @model_validator(mode="after")
    def _says_what_it_needs_and_that_will_do(self) -> Self:
        options = KINDS[self.type].options.items()
        missing = [option.example for key, option in options if option.needed and getattr(self, key, None) is None]
        if missing:
            raise ValueError(f'a reward of type "{self.type}" needs "{", ".join(missing)}"')
        for key, option in options:  # here and not field by field: a message about the entry repeats no value
            if option.check is not None and getattr(self, key) is not None and not option.check(getattr(self, key)):
                raise ValueError(f"{key} must be {option.wanted}")
        return self


def repeated(rewards: Sequence[RewardSpec]) -> Iterator[tuple[int, int]]:
    """Places of rewards that judge as one before them does, and of that one; they may weigh and be called otherwise."""
    alike = [reward.model_copy(update={"weight": None, "name": None}) for reward in rewards]
    yield from ((i, alike.index(reward)) for i, reward in enumerate(alike) if alike.index(reward) < i)


def option_fields(options: Mapping[str, Option]) -> dict[str, Any]:
    """Options as the fields of a section; each may be left out."""
    fields: dict[str, Any] = {}
    for key, option in options.items():
        known: dict[Any, Any] = {int: Whole, float: Real, str: Dotted if key == "module" else Name}
        limits = Field(ge=option.at_least, le=option.at_most, gt=option.above)
        limited: Any = Annotated[known.get(option.kind, option.kind), limits]
        fields[key] = (limited | None, Field(default=None, description=option.meaning))
    return fields


REWARD_SPECS: dict[str, type[RewardSpec]] = {
    name: create_model(f"RewardSpec_{name}", __base__=RewardSpec, **option_fields(kind.options))
    for name, kind in KINDS.items()
}
"""The section of each type of reward."""
