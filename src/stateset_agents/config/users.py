"""Who answers the agent: `environment.user` of a config file.

Invariant: a key that says nothing about a user of its type is refused. What a user played by a model has by default is
written into the resolved config, because results have to say it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from .fields import NotNegative, Positive, Real, Section

_Name = Annotated[str, Field(min_length=1)]

_PLAYED = ("model", "endpoint")
_DEFAULTS = {"temperature": 0.7, "max_tokens": 128, "seed": 0, "done_marker": "[DONE]"}
_OWNERS = {
    **dict.fromkeys(("model_name", "temperature", "max_tokens", "max_turns", "done_marker"), _PLAYED),
    **dict.fromkeys(("base_url", "api_key_env", "when_down", "patience"), ("endpoint",)),
    "seed": (*_PLAYED, "mixture"),
    "users": ("mixture",),
}


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):  # an API key has small letters and is easily put here instead
        raise ValueError("want the name of an environment variable in capitals, such as USER_API_KEY, not the key")
    return name


class UserSpec(Section):
    """One user."""

    type: Literal["scripted", "model", "endpoint"] = Field(description="scripted: user_responses; the others are asked")
    model_name: _Name | None = Field(
        default=None,
        description="for model: name or folder; null: a frozen copy of the agent's own model. For endpoint: its name",
    )
    base_url: _Name | None = Field(default=None, description="for endpoint: what stands before /chat/completions")
    api_key_env: Annotated[_Name, AfterValidator(_variable)] | None = Field(
        default=None, description="for endpoint: environment variable that holds the API key"
    )
    when_down: Literal["skip", "wait"] | None = Field(
        default=None,
        description="for endpoint: skip (null) drops the conversations that it fails, wait has the run stand still",
    )
    patience: Annotated[Real, Field(ge=0)] | None = Field(
        default=None, description="for endpoint: seconds that it may be down; null: 0 for skip, 3600 for wait"
    )
    temperature: Annotated[Real, Field(ge=0, le=5)] | None = Field(default=None, description="0: greedy")
    max_tokens: Annotated[Positive, Field(le=131_072)] | None = Field(
        default=None, description="longest line, in tokens"
    )
    seed: NotNegative | None = Field(default=None, description="another seed, another user's words")
    max_turns: Positive | None = Field(default=None, description="lines that the user says at most; null: any number")
    done_marker: Annotated[str, Field(pattern=r"\S")] | None = Field(
        default=None, description="what the model says to leave; the agent never sees it"
    )

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> Self:
        for key, owners in _OWNERS.items():
            if getattr(self, key, None) is not None and self.type not in owners:
                kinds = " or ".join(f'"{owner}"' for owner in owners)
                raise ValueError(f'{key} is for a user of type {kinds}, but this one is "{self.type}"')
        if self.type == "endpoint":
            for key in ("base_url", "model_name"):
                if getattr(self, key) is None:
                    raise ValueError(f'a user of type "endpoint" needs {key}')
        return self

    def filled(self) -> Self:
        """With its defaults written out."""
        defaults = _DEFAULTS if self.type in _PLAYED else {}
        return self.model_copy(update={name: v for name, v in defaults.items() if getattr(self, name) is None})


class SharedUser(UserSpec):
    """A member of a mixture."""

    share: Annotated[Real, Field(gt=0)] = Field(description="share of the scenarios; shares are divided by their sum")


class UserSection(UserSpec):
    """The user of an environment: one, or a mixture of several."""

    type: Literal["scripted", "model", "endpoint", "mixture"] = Field(  # type: ignore[assignment]
        description="scripted: user_responses; mixture: one of `users` for each scenario; the others are asked"
    )
    users: Annotated[list[SharedUser], Field(min_length=1)] | None = Field(
        default=None, description="for mixture: users, each with its share"
    )

    @model_validator(mode="after")
    def _a_mixture_has_members(self) -> Self:
        if self.type == "mixture" and self.users is None:
            raise ValueError('a user of type "mixture" needs users: [{share: 0.7, type: scripted}, ...]')
        return self

    def filled(self) -> Self:
        """See `UserSpec.filled`; of a mixture, each member."""
        if self.users is None:
            return super().filled()
        return self.model_copy(update={"seed": self.seed or 0, "users": [user.filled() for user in self.users]})

    @property
    def scripted(self) -> bool:
        """Whether each scenario's user says its script."""
        return self.type == "scripted" if self.users is None else {user.type for user in self.users} == {"scripted"}
