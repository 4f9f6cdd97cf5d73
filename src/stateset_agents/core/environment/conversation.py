"""An open-ended conversation with a user.

Invariant: the user is asked only when it is its turn, and whatever it raises is the user's failure. What the user sees
of the conversation holds no tokens.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, DataError
from ..facts import provided_topics
from ..scenario import Scenario, as_scenarios
from ..trajectory import ConversationTurn
from ..users import ScriptedUser, User, UserFailed, described, in_words, require_user
from .base import Environment, EnvironmentState, EpisodeStatus


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
        ConfigError: the persona is no text, or the user no user.
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
        if persona is not None and not isinstance(persona, str):
            raise ConfigError(f"persona is {persona!r:.60}; it must be text that says who the user is, or None")
        self.scenarios: list[Scenario] = as_scenarios(scenarios)
        self.max_turns = max_turns
        self.persona = persona
        if user is not None:
            require_user(user, "user")
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
        said = ConversationTurn("assistant", action) if isinstance(action, str) else action
        after = await self._seen(state, (*said.steps, said))
        after.turn_count += 1
        if after.status is EpisodeStatus.COMPLETED:
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

    async def unfinished(self, state: EnvironmentState, steps: Sequence[ConversationTurn]) -> EnvironmentState:
        """See `Environment.unfinished`; COMPLETED if that was all there was to do."""
        return await self._seen(state, steps)

    async def _seen(self, state: EnvironmentState, turns: Sequence[ConversationTurn]) -> EnvironmentState:
        after = state.copy()
        after.history += [turn.bare() for turn in turns]
        if await self._is_over(after):
            after.status = EpisodeStatus.COMPLETED
        return after

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
