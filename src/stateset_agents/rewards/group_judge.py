"""A model that compares all conversations of a scenario in one answer.

Invariant: every conversation is judged, by its name in the answer, or none is. Conversations that are word for word
alike are laid before the judge once and get the same score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from ..core.rewards.base import Context, Turns
from ..core.rewards.group import GroupReward
from .judge_cache import question_key
from .judge_reward import JudgeReward
from .judging import number_within, says_nothing, shown_context, shown_turn

DEFAULT_RUBRIC = (
    "A conversation that gives the user what they came for is better than one that does not. Among those that do, the "
    "more exact and the shorter one is better. What is made up counts heavily against a conversation."
)
_INSTRUCTIONS = """You compare {count} that began alike, and give each a score from 0, the worst, to 1, \
the best. Judge the assistant's part alone, by this rubric:

{rubric}

A better conversation gets a higher score, and how far two scores lie apart says how much better it is. Those that are \
equally good get the same score.

Answer with one JSON object and nothing else, with a score for each name: {{"scores": {{{form}}}}}"""


class GroupJudgeReward(JudgeReward, GroupReward):
    """Asks a model to score the conversations of a group beside each other: no reference, no scale of its own needed.

    It sees the words of all turns, what tools said included, and of the scenario's context what `show` names; what the
    conversations have in common at their beginning it sees once. It cannot see what is true beyond what it knows or is
    shown, nor any other group: a score of 0.8 means nothing beside the 0.8 of another scenario, and the mean over a run
    does not tell whether the agent gets better. Keep a reward that measures beside it in evaluations. It has the
    likings that judges have (see `LLMJudgeReward`), its liking for what it reads first is spread evenly by the order
    that the group's key draws; and all conversations must fit into its context.

    A judgement that fails leaves the whole group without a reward. A conversation in which the assistant says nothing
    gets 0 and is not shown.

    Args:
        model: who judges, such as an `Endpoint`.
        rubric: what to compare by; a list of criteria becomes one line each.
        weight, name: see `RewardFunction`.
        show: of the context, what the judge is to see beside the turns; see `judging.SHOWABLE`. What each conversation
            has for itself (`completed_actions`, `outcome`) is not there for a group.
        cache: what was judged before; by default in memory.
        temperature, max_tokens: of the judge's answer. A judge that thinks first needs room for it.

    Raises:
        ConfigError: the rubric is empty, or `show` names what there is not.
    """

    default_rubric = DEFAULT_RUBRIC
    default_max_tokens = 1024

    async def compare(self, conversations: Sequence[Turns], context: Context | None = None) -> list[float]:
        """Ask the judge about all of them at once.

        Raises:
            ChatFailed: it gave no answer.
            JudgeFailed: its answer cannot be read, or lacks a conversation.
        """
        shown = [[shown_turn(turn) for turn in turns] for turns in conversations]
        pairs = zip(conversations, shown, strict=True)
        keys = [None if says_nothing(turns) else question_key(talk) for turns, talk in pairs]
        distinct = {key: talk for key, talk in zip(keys, shown, strict=True) if key is not None}
        if not distinct:
            return [0.0] * len(conversations)
        names = {key: f"c{number}" for number, key in enumerate(distinct, 1)}
        instructions = _INSTRUCTIONS.format(
            count=f"{len(names)} conversation{'s' if len(names) > 1 else ''}",
            rubric=self.rubric,
            form=", ".join(f'"{name}": a number' for name in names.values()),
        )
        evidence = [
            *shown_context(context, self.show),
            *side_by_side({names[key]: talk for key, talk in distinct.items()}),
        ]

        def read(data: Mapping[str, Any]) -> dict[str, float]:
            return _read(data, list(names.values()))

        scores = await self.judge.ask(instructions, evidence, read)
        return [0.0 if key is None else scores[names[key]] for key in keys]


def side_by_side(talks: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict[str, Any]]:
    """Conversations by name, line by line, with what they have in common at their beginning once."""
    alike = takewhile(lambda turns: all(turn == turns[0] for turn in turns), zip(*talks.values(), strict=False))
    common = [turns[0] for turns in alike] if len(talks) > 1 else []
    lines: list[dict[str, Any]] = [{"conversation": "all of them", **turn} for turn in common]
    for name, talk in talks.items():
        rest = [{"conversation": name, **turn} for turn in talk[len(common) :]]
        lines += rest or [{"conversation": name, "ends": "here"}]
    return lines


def _read(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    scores = data.get("scores")
    if not isinstance(scores, Mapping):
        raise ValueError('the answer has no "scores" by name')
    if set(scores) != set(names):
        raise ValueError(f"the scores are those of {sorted(scores)!r:.200}, and not of {', '.join(names)}")
    return {name: number_within(scores[name], 0, 1, f"the score of {name}") for name in names}
