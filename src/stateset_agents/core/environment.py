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

from .errors import DataError
from .facts import provided_topics
from .outcome import Outcome
from .scenario import Scenario, as_scenarios, load_scenarios
from .trajectory import ConversationTurn
from .users import ScriptedUser, User, UserFailed, described, in_words


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

    def episode_tools(self, state: EnvironmentState) -> Sequence[Any]:
        """What the agent may call in its next turn, beside tools of its own: functions, or what `Tool.of` accepts.

        They may change `state`, which the next `step` gets.
        """
        return ()

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


class ConversationEnvironment(Environment):
    """An open-ended conversation with a user.

    It is over when the user has nothing left to say (COMPLETED) or after `max_turns` assistant turns (TIMEOUT). Step
    rewards are 0: what a conversation is worth is the reward function's business.

    Args:
        scenarios: mappings as in a scenarios file, or `Scenario` objects.
        max_turns: assistant turns after which a conversation is cut.
        persona: who the user is, in words, for a user that plays a role.
        user: who answers the agent; by default each scenario's script.

    Raises:
        DataError: no scenarios, or some that are wrong.
    """

    persona: str | None = None
    user: User = ScriptedUser()

    def __init__(
        self,
        scenarios: Sequence[Scenario | Mapping[str, Any]],
        max_turns: int = 10,
        persona: str | None = None,
        user: User | None = None,
    ) -> None:
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
            raise DataError(f"max_turns is {max_turns!r}; it must be a whole number of assistant turns, at least 1")
        self.scenarios: list[Scenario] = as_scenarios(scenarios)
        self.max_turns = max_turns
        self.persona = persona
        if user is not None:
            self.user = user
        require = getattr(self.user, "require", None)
        if callable(require):
            require(self.scenarios)

    async def reset(self, scenario: Scenario | Mapping[str, Any] | None = None) -> EnvironmentState:
        """Begin a conversation; its state's context holds what the user knows (topic, context, persona, ...)."""
        chosen = self._chosen(scenario)
        known = {
            "topic": chosen.topic,
            "context": chosen.context,
            "persona": self.persona,
            "initial_state": copy.deepcopy(dict(chosen.initial_state)),
        }
        return EnvironmentState(
            episode_id=uuid.uuid4().hex,
            context={"scenario_id": chosen.id, **{key: value for key, value in known.items() if value}},
            scenario=chosen,
            history=[ConversationTurn("user", await self.get_initial_prompt(chosen))],
        )

    async def get_initial_prompt(self, scenario: Scenario | Mapping[str, Any] | None = None) -> str:
        """The user's opening.

        Raises:
            UserFailed: the user raised.
        """
        chosen = self._chosen(scenario)
        try:
            return await self.user.opening(chosen, self.persona)
        except UserFailed:
            raise
        except Exception as error:
            raise UserFailed(f"{type(error).__name__}: {error}") from error

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """Let the user answer.

        Raises:
            UserFailed: the user raised.
            ValueError: the state did not come from `reset`, or its conversation is over.
        """
        scenario = state.scenario
        if scenario is None:
            raise ValueError("this state has no scenario; begin with `state = await environment.reset(scenario)`")
        if state.status is not EpisodeStatus.ONGOING:
            raise ValueError(f"this conversation is over ({state.status.value}); begin another with reset()")
        after = state.copy()
        said = ConversationTurn("assistant", action) if isinstance(action, str) else action
        after.history += [turn.bare() for turn in (*said.steps, said)]
        after.turn_count += 1
        if await self._is_over(after):
            after.status = EpisodeStatus.COMPLETED
            return after, None, 0.0, True
        try:
            answer = await self.user.reply(scenario, after.history, self.persona)
        except UserFailed:
            raise
        except Exception as error:
            raise UserFailed(f"{type(error).__name__}: {error}") from error
        if answer is None:
            after.status = EpisodeStatus.COMPLETED
        elif after.turn_count >= self.max_turns:
            after.status = EpisodeStatus.TIMEOUT
        else:
            response = ConversationTurn("user", answer)
            after.history.append(ConversationTurn("user", answer))
            return after, response, 0.0, False
        return after, None, 0.0, True

    def success(self, turns: Sequence[ConversationTurn], state: EnvironmentState) -> bool | None:
        """Whether the agent covered every topic of `success_criteria.information_provided`; None without any."""
        scenario = state.scenario
        if scenario is None or not scenario.topics:
            return None
        return all(provided_topics(turns, scenario.facts, scenario.topics).values())

    async def _is_over(self, state: EnvironmentState) -> bool:
        """Whether the conversation is over without another word of the user; may note in `state` what was done."""
        return False

    def describe_user(self, scenario: Scenario | None = None) -> dict[str, Any]:
        """See `Environment.describe_user`."""
        return described(self.user, scenario)

    def unused(self) -> list[tuple[str, str]]:
        """What a scripted user makes no use of."""
        if not isinstance(self.user, ScriptedUser):
            return []
        reason = "a scripted user says its lines as they are written; a simulated user would use it"
        scenarios = self.episode_scenarios()
        named = {
            "persona": self.persona,
            "success_criteria.user_satisfaction": any("user_satisfaction" in s.success_criteria for s in scenarios),
            "initial_state.user_knowledge": any("user_knowledge" in s.initial_state for s in scenarios),
        }
        return [(name, reason) for name, given in named.items() if given]

    def notices(self) -> list[str]:
        """Says who plays the user, and so when success is judged by keywords."""
        user = self.describe_user()
        played = [f"The user is played: {in_words(user)}."] if user != {"type": "scripted"} else []
        scenarios = self.episode_scenarios()
        loose = [s.id for s in scenarios if s.topics and not s.facts]
        if not loose:
            return played
        return [
            *played,
            f"{len(loose)} of {len(scenarios)} scenarios (first: {loose[0]!r}) ask for information_provided without "
            "facts: success is a keyword check, which is easy to fool; add facts: {topic: what should be stated}",
        ]
