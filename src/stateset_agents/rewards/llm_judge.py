"""A model that grades one conversation by a rubric.

Invariant: a score is what the judge said, from 0 to 10, divided by ten. Where it said nothing that can be read, there
is no score: the reward raises, and the episode leaves its group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.rewards.base import Context, RewardResult, Turns
from .judge_reward import JudgeReward
from .judging import number_within, reason_of, says_nothing, shown_context, shown_turn

DEFAULT_RUBRIC = (
    "Does the assistant give the user what they came for: right, complete, nothing made up, and no longer than needed?"
)
_INSTRUCTIONS = """You grade the assistant of one conversation by this rubric:

{rubric}

Answer with one JSON object and nothing else: {{"reason": "one short sentence", "score": a number from 0, the worst, \
to 10, the best}}"""


class LLMJudgeReward(JudgeReward):
    """Asks a model how good a conversation is.

    It sees the words of all turns, what tools said included, and of the context what `show` names. It cannot see what
    is true beyond what it knows or is shown; it cannot see the tools' effects, tokens, or other conversations. Judges
    have a liking for long, confident and friendly text, and for text like their own: a rubric that says what does not
    count helps, and a policy that is trained long enough will find what is left. Where something can be checked by
    code, check it by code and combine the two. The conversation is laid before the judge as evidence, which hinders
    text that gives it orders and does not rule it out.

    A conversation in which the assistant says nothing gets 0 without being asked about.

    Args:
        model: who judges, such as an `Endpoint`.
        rubric: what to grade by; a list of criteria becomes one line each.
        weight, name: see `RewardFunction`.
        show: of the context, what the judge is to see beside the turns; see `judging.SHOWABLE`.
        cache: what was judged before; by default in memory.
        temperature, max_tokens: of the judge's answer. A judge that thinks first needs room for it.

    Raises:
        ConfigError: the rubric is empty, or `show` names what there is not.
    """

    default_rubric = DEFAULT_RUBRIC
    default_max_tokens = 512
    maximum = 1.0

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Ask the judge.

        Raises:
            ChatFailed: it gave no answer.
            JudgeFailed: its answer cannot be read.
        """
        if says_nothing(turns):
            return RewardResult(0.0, metadata={"judge": "not asked: the assistant says nothing"})
        evidence = [*shown_context(context, self.show), *(shown_turn(turn) for turn in turns)]
        score, reason = await self.judge.ask(_INSTRUCTIONS.format(rubric=self.rubric), evidence, _read)
        return RewardResult(score / 10.0, metadata={"judge": reason} if reason else {})

    @property
    def label(self) -> str:
        """`name`, or what stands for it."""
        return self.name or "llm_judge"


def _read(data: Mapping[str, Any]) -> tuple[float, str]:
    if "score" not in data:
        raise ValueError('the answer has no "score"')
    return number_within(data["score"], 0, 10, "the score"), reason_of(data)
