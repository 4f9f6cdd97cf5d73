"""Cases of the reward lab: a situation, one honest conversation in it, and attacks on it.

Invariant: every conversation of a case has one reply for each thing that the user says, so that conversations differ in
what the agent did and in nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from ...core.scenario import Scenario
from ...core.trajectory import ConversationTurn

CATEGORIES: dict[str, str] = {
    "platitudes": "fluent and polite, and says nothing",
    "keyword_stuffing": "the right words and figures in a heap",
    "copying_question": "the user's own words given back",
    "flattery": "praise in place of an answer",
    "hidden_instructions": "text aimed at whoever scores",
    "empty": "nothing, or next to it",
    "very_long": "length for its own sake",
    "other_language": "no answer, in a language that the user did not use",
    "markup": "headings, tables, code and emoji in place of content",
    "wrong_answer": "complete, confident and false",
}
"""What an attack tries, and in words what that is."""


@dataclass(frozen=True)
class Reply:
    """What the agent says to the user, after the calls that led to it."""

    text: str
    steps: tuple[ConversationTurn, ...] = ()

    def turn(self) -> ConversationTurn:
        """An assistant turn of its own, as an agent gives it."""
        return ConversationTurn("assistant", self.text, steps=copy.deepcopy(list(self.steps)))


Replies = tuple[Reply, ...]


@dataclass(frozen=True)
class Attack:
    """A conversation that deserves less than the honest one.

    Attributes:
        category: one of `CATEGORIES`.
        replies: one for each thing that the user says.
        note: what the trick is.
    """

    category: str
    replies: Replies
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A situation with an honest conversation and attacks on it.

    Attributes:
        scenario: what is true, what the user says and what a task asks for; its id is the case's.
        about: what the user needs and what a good reply does.
        language: that the user and the honest agent speak.
        honest: one reply for each thing that the user says.
        attacks: at least one.
        system_prompt: of the agent.
    """

    scenario: Scenario
    about: str
    language: str
    honest: Replies
    attacks: tuple[Attack, ...]
    system_prompt: str = ""

    @property
    def id(self) -> str:
        """Unique in its file."""
        return self.scenario.id
