"""Engagement: the assistant follows the user and keeps the conversation going."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .base import Context, RewardFunction, RewardResult, Turns
from .text import exchanges, fluency, pick_up, similarity, substance, words

_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]?")
_EMPTY = 0.1


class EngagementReward(RewardFunction):
    """Whether replies follow the user, mean over the assistant turns.

    A reply takes up the words of the message it answers (0.4), is not what the assistant said before (0.3), and turns to
    the user (0.3): it speaks to them or asks a question that has content of its own ("How can I help?" has none). A reply
    that adds nothing to the user's own words and to polite phrases gets at most a tenth. A heuristic on words: it cannot
    see interest, only its outer signs.
    """

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score all assistant turns."""
        scores: list[float] = []
        said: list[str] = []
        for part in exchanges(turns):
            fresh = 1.0 - max((similarity(part.reply, before) for before in said), default=0.0)
            follows = 0.4 * pick_up(part.reply, part.asked) + 0.3 * fresh + 0.3 * _turns_to_user(part.reply, part.asked, said)
            scores.append(fluency(part.reply) * follows * (1.0 if substance(part.reply, part.asked) else _EMPTY))
            said.append(part.reply)
        return RewardResult.mean(scores)

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards."""
        return {"type": "engagement", "weight": self.weight}


def _turns_to_user(reply: str, asked: str, said: Sequence[str]) -> float:
    questions = [sentence for sentence in _SENTENCE.findall(reply) if sentence.endswith("?")]
    if any(substance(question, asked, *said) for question in questions):
        return 1.0
    return 0.7 if {"you", "your", "you'll", "you're"} & set(words(reply)) else 0.0
