"""The other side of the conversation.

Invariant: a user is a function of the scenario and of what was said so far. It keeps no state of its own between
calls, so that one user serves any number of conversations at once. The opening depends on the scenario alone: all
samples of a group answer the same words.

When a user fails, that is never the agent's fault: whatever it raises reaches the rollout as `UserFailed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .errors import DataError
from .scenario import Scenario
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
