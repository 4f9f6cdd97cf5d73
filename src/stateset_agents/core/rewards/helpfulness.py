"""Helpfulness: the reply answers, instead of being polite about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .base import Context, RewardFunction, RewardResult, Turns
from .correctness import score_facts
from .text import Exchange, exchanges, finished, fluency, pick_up, substance

_FACTS, _STYLE = 0.75, 0.25
_ENOUGH_CONTENT = 4
_POLITE = 0.05


class HelpfulnessReward(RewardFunction):
    """Whether replies give the user what they asked for.

    Where the scenario has `facts`, three quarters of the score are the facts that were asked for (as in
    `CorrectnessReward`), and a quarter is whether each reply is a finished, readable sentence about the question.

    Without facts it is a heuristic, mean over the assistant turns: a reply should add content words beyond the user's,
    beyond polite phrases and beyond what was said before; take up words of the question; and end as a sentence.
    Platitudes, echoes, repetition, heaps of keywords and endless text score low. It is easy to fool all the same: a
    fluent answer that is false, or beside the point in the right words, passes. Give scenarios facts where you can.
    """

    maximum = 1.0

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score all assistant turns."""
        context = context or {}
        facts = context.get("facts") or {}
        asked = [topic for topic in context.get("information_provided") or facts if topic in facts]
        parts = exchanges(turns)
        if not asked:
            return RewardResult.mean([_content(part) for part in parts], judged_by="words")
        stated = score_facts(turns, facts, asked, context)
        shares = [_STYLE * _style(part) / len(parts) for part in parts]
        shares = [_FACTS * fact + style for fact, style in zip(stated.turn_rewards or [], shares, strict=True)]
        return RewardResult(sum(shares), stated.breakdown, {"judged_by": "facts"}, shares)

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Says so when scenarios have no facts to judge by."""
        loose = [scenario.get("id", "?") for scenario in scenarios if not scenario.get("facts")]
        if not loose:
            return []
        return [
            f"reward {self.label!r} judges {len(loose)} of {len(scenarios)} scenarios (first: {loose[0]!r}) by their "
            "words, which is easy to fool: they have no facts. Add facts: {topic: what should be stated}"
        ]


def _style(part: Exchange) -> float:
    """A readable, finished sentence that is about the question and adds something to it."""
    if not substance(part.reply, part.asked, part.heard):
        return 0.0
    return fluency(part.reply) * (0.5 * finished(part.reply) + 0.5 * pick_up(part.reply, part.asked))


def _content(part: Exchange) -> float:
    """A reply that adds something; polite words alone are worth next to nothing."""
    added = min(1.0, len(substance(part.reply, part.asked, part.heard, *part.said)) / _ENOUGH_CONTENT)
    answer = added * (0.5 + 0.5 * pick_up(part.reply, part.asked)) * (0.8 + 0.2 * finished(part.reply))
    return fluency(part.reply) * max(answer, _POLITE)
