"""The other side of the conversation.

Invariant: a user is a function of the scenario and of what was said so far. It keeps no state of its own between
calls, so that one user serves any number of conversations at once. The opening depends on the scenario alone: all
samples of a group answer the same words.

When a user fails, that is never the agent's fault: whatever it raises reaches the rollout as `UserFailed`.

Two methods make a user. It may have two more: `describe(scenario=None)`, what results say of it, and
`require(scenarios)`, which raises DataError where it could not play one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from .errors import ConfigError, DataError
from .scenario import Scenario, require_user_turns
from .trajectory import ConversationTurn


class UserFailed(Exception):
    """A user could not say its next line. The episode ends as `Outcome.USER`; the cause is chained."""


@runtime_checkable
class User(Protocol):
    """Anyone who can open a conversation and answer an agent."""

    async def opening(self, scenario: Scenario, persona: str | None = None) -> str:
        """The first message: the same each time for the same scenario."""
        ...

    async def reply(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> str | None:
        """The next message, or None when the user has nothing left to say.

        Args:
            scenario: what the conversation is about.
            turns: all of it so far; the last one is the agent's.
            persona: who the user is, in words.
        """
        ...


class ScriptedUser:
    """Says the scenario's `user_responses` in order, whatever the agent answers. Has no use for a persona."""

    async def opening(self, scenario: Scenario, persona: str | None = None) -> str:
        """The first line of the script.

        Raises:
            DataError: the scenario has no script.
        """
        if not scenario.user_responses:
            raise DataError(f"scenario {scenario.id!r} has no user_responses; a scripted user needs at least one")
        return scenario.user_responses[0]

    async def reply(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> str | None:
        """The next line of the script; None after the last."""
        said = sum(turn.role == "user" for turn in turns)
        return scenario.user_responses[said] if said < len(scenario.user_responses) else None

    def describe(self, scenario: Scenario | None = None) -> dict[str, Any]:
        """That it is scripted: there is nothing else to know about it."""
        return {"type": "scripted"}

    def require(self, scenarios: Sequence[Scenario], *, where: str = "scenarios") -> None:
        """Check that there are lines to say.

        Raises:
            DataError: there is no scenario at all, or some have no `user_responses`.
        """
        require_user_turns(scenarios, where=where)


def require_user(user: object, place: str) -> None:
    """Refuse what is no user, before it is asked for its first line.

    Raises:
        ConfigError: it lacks `opening` or `reply`, or is a class.
    """
    if isinstance(user, type) or not isinstance(user, User):
        raise ConfigError(
            f"{place} is {user!r:.60}; it must be an object with `opening` and `reply`, such as ScriptedUser() or "
            "ModelUser(model)"
        )


def described(user: object, scenario: Scenario | None = None) -> dict[str, Any]:
    """What results say of a user; the name of its class where it says nothing itself.

    Args:
        user: any user.
        scenario: say who plays this one; None describes the user as a whole.
    """
    describe = getattr(user, "describe", None)
    return dict(describe(scenario)) if callable(describe) else {"type": type(user).__name__}


def in_words(about: Mapping[str, Any]) -> str:
    """A user's description as part of a sentence: "tiny at temperature 0.7, seed 0"."""
    if "users" in about:
        members = " and ".join(f"{user['share']:.0%} {in_words(user)}" for user in about["users"])
        return f"{members} (chosen by scenario, seed {about['seed']})"
    named = str(about.get("model", about.get("type", "a user")))
    more = [f"{word}{name} {about[name]}" for word, name in (("at ", "temperature"), ("", "seed")) if name in about]
    return " ".join([named, ", ".join(more)]).strip()


_unheard: ContextVar[list[str] | None] = ContextVar("unheard", default=None)


@contextmanager
def keep_unheard() -> Iterator[list[str]]:
    """Collect what users say within this task that the agent does not get to hear (see `say_unheard`)."""
    kept: list[str] = []
    token = _unheard.set(kept)
    try:
        yield kept
    finally:
        _unheard.reset(token)


def say_unheard(said: str) -> None:
    """Note for the episode's record what the agent does not get to hear: a farewell, a line that was no line."""
    kept = _unheard.get()
    if kept is not None:
        kept.append(said)
