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
from ...core.environment import ConversationEnvironment, Environment
from ...core.environment.task import TaskEnvironment
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
    played = await play_unjudged(agent, _environment(case), case.scenario, key=key)
    if played[1] is None:
        raise DataError(f"{key} cannot be played: {played[0].error}")
    return played


def _environment(case: Case) -> Environment:
    """The user of the case, who leaves when a task is done."""
    turns = len(case.scenario.user_responses)
    if "required_actions" in case.scenario.extra:
        return TaskEnvironment([case.scenario], max_turns=turns)
    return ConversationEnvironment([case.scenario], max_turns=turns)


def _role(turn: ConversationTurn | Mapping[str, str]) -> str:
    return turn["role"] if isinstance(turn, Mapping) else turn.role
