"""What a model is told that plays a user, and what of its answer is the user's line.

Invariant: the prompt is a function of persona and scenario: the same for each line of each conversation on it. The
user knows what a scenario says of the user (`context`, `topic`, `initial_state`, `user_satisfaction`), and neither the
facts that the agent should state nor the ground truth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.scenario import Scenario

DONE = "[DONE]"
"""What a user says, by default, when it has nothing left to say."""

GREETING = "Hello! How can I help you?"
"""What the user's model reads before its opening, in the agent's place. The agent never sees it: a chat template wants
somebody to have spoken first."""

_RULES = """\
You play a person who talks to an assistant. You are the person, never the assistant: say only what the person says.
{facts}
Say one short message at a time, in the person's own plain words, and do not tell everything at once. When the person \
has got what they want, or cannot get it here, say {marker} and nothing else."""

_SAID_OF = {
    "user_goal": "What the person wants",
    "user_knowledge": "What the person knows about it",
}

_OTHER_SIDE = re.compile(r"^[ \t]*(?:assistant|agent)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_OWN_LABEL = re.compile(r"^(?:user|customer|person)[ \t]*:[ \t]*", re.IGNORECASE)
_LOOP = re.compile(r"(.{1,60}?)\1{7,}", re.DOTALL)
_LONG_LOOP = 80


def user_prompt(scenario: Scenario, persona: str | None = None, marker: str = DONE) -> str:
    """The system prompt of a model that plays the user of a scenario.

    Args:
        scenario: what the conversation is about.
        persona: who the user is, in words.
        marker: what the user says when it is done.
    """
    facts = {"Who the person is": persona, "The situation": scenario.context, "What it is about": scenario.topic}
    for key, value in scenario.initial_state.items():
        facts[_SAID_OF.get(key, key.replace("_", " ").capitalize())] = _in_words(value)
    if "user_satisfaction" in scenario.success_criteria:
        facts["How satisfied the person wants to be"] = _in_words(scenario.success_criteria["user_satisfaction"])
    told = "".join(f"\n{name}: {value}" for name, value in facts.items() if value)
    return _RULES.format(facts=told + "\n" if told else "", marker=marker)


def line_of(said: str) -> str:
    """The user's line in what its model said; "" if there is none.

    A label before it ("User: ...") goes, and so does everything from where the model begins to speak for the assistant.
    """
    cut = _OTHER_SIDE.search(said)
    own = said[: cut.start()] if cut else said
    return _OWN_LABEL.sub("", own.strip()).strip()


def loops(line: str) -> bool:
    """Whether a line is mostly one piece of text over and over: a model that does not find its way out."""
    longest = max((len(found.group()) for found in _LOOP.finditer(line)), default=0)
    return longest >= _LONG_LOOP and 2 * longest > len(line)


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_in_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return "; ".join(map(_in_words, value))
    return str(value)
