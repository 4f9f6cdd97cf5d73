"""A written conversation, held again in its situation.

Invariant: a reward learns of it what it would learn of an episode of a run. The replies are recited by an agent in the
environment of the case, on the path that every episode takes, so that turns, tool calls and context are what a run
would show, and a reward that fails is told apart from one that gives a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ...agents import Agent
from ...agents.base import History
from ...core.environment import ConversationEnvironment, EnvironmentState
from ...core.errors import DataError
from ...core.trajectory import ConversationTurn
from ...rollouts.episode import Played, play_unjudged
from .cases import Case, Replies, Reply


class Reciter(Agent):
    """An agent that says what is written.

    Args:
        replies: one for each thing that the user says.
        system_prompt: that rewards are told it had.
    """

    def __init__(self, replies: Replies, system_prompt: str = "") -> None:
        self._replies = replies
        self.config = SimpleNamespace(system_prompt=system_prompt)

    async def process_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> ConversationTurn:
        """The next reply, with the calls that led to it."""
        return self._replies[sum(_role(turn) == "user" for turn in history)].turn()


class _Situation(ConversationEnvironment):
    """The user of a case; counts what a task asks for as done when a reply or a call has one of its keywords."""

    def __init__(self, case: Case) -> None:
        super().__init__([case.scenario], max_turns=len(case.scenario.user_responses))
        self._actions = case.required_actions

    async def reset(self, scenario: Any = None) -> EnvironmentState:
        state = await super().reset(scenario)
        if self._actions:
            state.context |= {"required_actions": [a["name"] for a in self._actions], "completed_actions": []}
        return state

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        after, answer, reward, done = await super().step(state, action)
        words = action if isinstance(action, str) else _words(action)
        for required in self._actions:
            completed = after.context["completed_actions"]
            if required["name"] not in completed and any(k.lower() in words for k in required["keywords"]):
                completed.append(required["name"])
        return after, answer, reward, done


@dataclass(frozen=True)
class Staged:
    """A case whose conversations have been held.

    Attributes:
        case: whose they are.
        honest: the honest one.
        silent: one in which the agent says nothing.
        attacks: one for each attack, in their order.
    """

    case: Case
    honest: Played
    silent: Played
    attacks: tuple[Played, ...]


async def stage(cases: Sequence[Case]) -> list[Staged]:
    """Hold every conversation of the cases, once for all rewards.

    Raises:
        DataError: one cannot be held.
    """
    return [
        Staged(
            case,
            await _replay(case, case.honest, "honest"),
            await _replay(case, tuple(Reply("") for _ in case.honest), "silence"),
            tuple([await _replay(case, attack.replies, f"attacks[{i}]") for i, attack in enumerate(case.attacks)]),
        )
        for case in cases
    ]


async def _replay(case: Case, replies: Replies, name: str) -> Played:
    key = f"{case.id}/{name}"
    agent = Reciter(replies, case.system_prompt)
    played = await play_unjudged(agent, _Situation(case), case.scenario, key=key)
    if played[1] is None:
        raise DataError(f"{key} cannot be played: {played[0].error}")
    return played


def _words(action: ConversationTurn) -> str:
    called = [call.name for step in action.steps for call in step.tool_calls]
    return " ".join([action.content, *called]).lower()


def _role(turn: ConversationTurn | Mapping[str, str]) -> str:
    return turn["role"] if isinstance(turn, Mapping) else turn.role
