"""Environments: who speaks next, and when a conversation is over.

Invariant: an episode's state is in its `EnvironmentState`. `step` returns another state and leaves the one that it was
given as it was, so that one environment serves any number of episodes at once.

A custom environment subclasses `Environment` and may define `step` alone: everything else has a default at class
level, so that it works even when its `__init__` does not call `super().__init__()`.
"""

from __future__ import annotations

import copy
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..outcome import Outcome
from ..scenario import Scenario, as_scenarios, load_scenarios
from ..tools import Tool
from ..trajectory import ConversationTurn


class EpisodeStatus(StrEnum):
    """Where an episode stands, as its environment sees it."""

    ONGOING = "ongoing"
    COMPLETED = "completed"
    """It came to its end."""
    FAILED = "failed"
    """It came to an end that the environment calls a failure of the agent."""
    TIMEOUT = "timeout"
    """The turn limit cut it."""


@dataclass
class EnvironmentState:
    """The state of one episode.

    Attributes:
        episode_id: opaque.
        turn_count: assistant turns so far.
        status: where the episode stands.
        context: free for the environment; rewards read it as `context["state"]`.
        scenario: what the episode is played on.
        history: the conversation, with the agent's calls of tools, for a user that answers to it. No tokens.
    """

    episode_id: str
    turn_count: int = 0
    status: EpisodeStatus = EpisodeStatus.ONGOING
    context: dict[str, Any] = field(default_factory=dict)
    scenario: Scenario | None = field(default=None, repr=False)
    history: list[ConversationTurn] = field(default_factory=list, repr=False)

    def copy(self) -> EnvironmentState:
        """A deep copy: changing it never changes this one."""
        return copy.deepcopy(self)


class Environment(ABC):
    """Base of all environments.

    Attributes:
        max_turns: assistant turns after which an episode is cut.
        scenarios: what episodes are played on, as mappings or `Scenario` objects. Without any, all episodes are
            played on one blank scenario.
        initial_prompt: opens a conversation whose scenario has no user turns.
    """

    max_turns: int = 10
    scenarios: Sequence[Scenario | Mapping[str, Any]] = ()
    initial_prompt: str = "Hello!"

    def episode_scenarios(self) -> list[Scenario]:
        """`scenarios` as checked `Scenario` objects; a single blank one when there are none.

        Raises:
            DataError: an entry is no scenario, or two have the same id.
        """
        return as_scenarios(self.scenarios, strict=False) or [Scenario(id="episode")]

    def read_scenarios(self, path: str | Path) -> list[Scenario]:
        """The scenarios of a file of this environment's kind.

        Raises:
            DataError: see `load_scenarios`.
        """
        return load_scenarios(path)

    async def reset(self, scenario: Scenario | Mapping[str, Any] | None = None) -> EnvironmentState:
        """Begin an episode.

        Args:
            scenario: what to play; None plays the first one.
        """
        return EnvironmentState(episode_id=uuid.uuid4().hex, scenario=self._chosen(scenario))

    @abstractmethod
    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """Answer one assistant turn.

        Args:
            state: the episode so far; left unchanged.
            action: what the agent said.

        Returns:
            The state after this turn, the user's next message (or None), the reward of this step, and whether the
            episode is over.
        """

    async def get_initial_prompt(self, scenario: Scenario | Mapping[str, Any] | None = None) -> str:
        """The user message that opens a conversation on `scenario`."""
        chosen = self._chosen(scenario)
        return chosen.user_responses[0] if chosen.user_responses else self.initial_prompt

    async def unfinished(self, state: EnvironmentState, steps: Sequence[ConversationTurn]) -> EnvironmentState:
        """See what the agent did in a move that the end of its context cut before the reply: nobody answers it.

        Args:
            state: the episode so far; left unchanged.
            steps: calls of the agent and what the tools said.

        Returns:
            The state after them.
        """
        return state

    def episode_tools(self, state: EnvironmentState) -> Sequence[Any]:
        """What the agent may call in its next turn, beside tools of its own: functions, or what `Tool.of` accepts.

        They may change `state`, which the next `step` gets.
        """
        return ()

    def require_tools(self, tools: Sequence[Tool]) -> None:
        """Refuse what an agent with these tools can never do.

        Raises:
            DataError: a scenario asks for it.
        """

    def success(self, turns: Sequence[ConversationTurn], state: EnvironmentState) -> bool | None:
        """Whether the agent did what the environment asks for; None when it states no criterion.

        By default the status tells: COMPLETED is success, FAILED is not, anything else is no statement.
        """
        return {EpisodeStatus.COMPLETED: True, EpisodeStatus.FAILED: False}.get(state.status)

    def reward_context(
        self, state: EnvironmentState, scenario: Scenario, turns: Sequence[ConversationTurn], outcome: Outcome
    ) -> dict[str, Any]:
        """What rewards are told about an episode, beyond its turns."""
        return {
            "scenario": scenario.to_dict(),
            "scenario_id": scenario.id,
            "state": state.context,
            "facts": dict(scenario.facts),
            "information_provided": scenario.topics,
            "ground_truth": scenario.ground_truth,
            "completed_actions": state.context.get("completed_actions", []),
            "required_actions": state.context.get("required_actions", []),
            "expected_turns": scenario.expected_turns,
            "outcome": outcome.value,
        }

    def unused(self) -> list[tuple[str, str]]:
        """Settings that this environment was given and cannot use, each with the reason."""
        return []

    def notices(self) -> list[str]:
        """What a reader of the results should know about how they come about."""
        return []

    def describe_user(self, scenario: Scenario | None = None) -> dict[str, Any] | None:
        """Who answers the agent, as results record it; None where the environment's own code does.

        Args:
            scenario: who plays this one; None describes the user as a whole.
        """
        return None

    def _chosen(self, scenario: Scenario | Mapping[str, Any] | None) -> Scenario:
        if scenario is None:
            return self.episode_scenarios()[0]
        return scenario if isinstance(scenario, Scenario) else Scenario.from_dict(scenario, strict=False)
