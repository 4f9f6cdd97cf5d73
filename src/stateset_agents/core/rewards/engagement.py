"""Engagement: the assistant follows the user and keeps the conversation going."""

from __future__ import annotations

import re

from .base import Context, RewardFunction, RewardResult, Turns
from .text import Exchange, exchanges, fluency, pick_up, similarity, substance, words

_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]?")
_ENOUGH_CONTENT = 2
_EMPTY = 0.1
_ADDRESSED = 0.7


class EngagementReward(RewardFunction):
    """Whether replies follow the user, mean over the assistant turns.

    A reply takes up the words of the message it answers (0.4), is not what the assistant said before (0.3), and turns
    to the user (0.3): it asks a question that has content of its own ("How can I help?" has none) or at least speaks to
    them. A reply that adds nothing to the conversation's words so far and to polite phrases gets at most a tenth. A
    heuristic on words: it cannot see interest, only its outer signs.
    """

    maximum = 1.0

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score all assistant turns."""
        return RewardResult.mean([_follows(part) for part in exchanges(turns)])


def _follows(part: Exchange) -> float:
    fresh = 1.0 - max((similarity(part.reply, before) for before in part.said), default=0.0)
    signs = 0.4 * pick_up(part.reply, part.asked) + 0.3 * fresh + 0.3 * _turns_to_user(part)
    added = min(1.0, len(substance(part.reply, part.asked, part.heard, *part.said)) / _ENOUGH_CONTENT)
    return fluency(part.reply) * signs * max(_EMPTY, added)


def _turns_to_user(part: Exchange) -> float:
    questions = [sentence for sentence in _SENTENCE.findall(part.reply) if sentence.endswith("?")]
    if any(substance(question, part.asked, part.heard, *part.said) for question in questions):
        return 1.0
    return _ADDRESSED if {"you", "your", "you'll", "you're"} & set(words(part.reply)) else 0.0
