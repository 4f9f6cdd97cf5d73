"""Correctness: what was asked for was stated, and little else was.

Invariant: credit is given for facts alone. A right statement counts once, whenever it is made; stating what nobody
asked for, saying the same fact again and inventing figures each cost a little, so that neither reciting everything one
knows nor guessing several values pays. What a fact match cannot see is said in `core.facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..facts import Fact, accepted_wordings, figures, implies, stated_topics
from .base import Context, RewardFunction, RewardResult, Turns
from .ground_truth import Answers, GroundTruth
from .text import exchanges, fluency

UNASKED_COST = 0.1
"""Of a fact that nobody asked for, each time it is stated."""
REPEATED_COST = 0.05
"""Of a fact that was asked for and stated in an earlier turn already."""
INVENTED_COST = 0.1
"""Of a number that neither the facts nor the user nor the scenario know."""


class CorrectnessReward(RewardFunction):
    """Share of the asked facts that the assistant states, less what unasked and repeated ones cost.

    The costs are `UNASKED_COST`, `REPEATED_COST` and so on. What is right comes from, in this order: `ground_truth` (or
    the file) under the scenario's id, the context's `ground_truth`, the context's `facts`. With facts, those named in
    `information_provided` are asked for (all of them if none is named). Credit for a fact shrinks with the fluency of
    the turn that states it, so that a heap of keywords earns less than a sentence. An episode without any of these is
    unscored.

    It sees wordings, not meaning: "it is not $49" states $49, and a right answer in words that nobody listed is wrong.

    Args:
        weight: see `RewardFunction`.
        ground_truth: scenario id to its right answer (see `GroundTruth`), or one answer for every scenario.
        ground_truth_file: a file with them, `{"ground_truth": {scenario id: answer}}`.
        name: see `RewardFunction`.

    Raises:
        ConfigError: both are given, or an answer is neither text nor a list of texts nor a mapping of topics.
        DataError: the file is missing or malformed.
    """

    maximum = 1.0

    def __init__(
        self,
        weight: float = 1.0,
        ground_truth: str | Mapping[str, GroundTruth] | None = None,
        ground_truth_file: str | Path | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        self._answers = Answers(ground_truth, ground_truth_file, self.label)

    @property
    def ground_truth(self) -> str | Mapping[str, GroundTruth] | None:
        """What it was given, with a file's contents in place of the file."""
        return self._answers.given

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score the facts of all assistant turns."""
        context = context or {}
        facts, asked = self._task(context)
        if not asked:
            return RewardResult.unscored(
                f"scenario {context.get('scenario_id', '?')!r} has neither facts nor ground truth to judge by"
            )
        return score_facts(turns, facts, asked, context)

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check that there is something to be right about.

        Raises:
            ConfigError: no scenario has facts or ground truth.
        """
        if scenarios and not any(self._task(_context_of(scenario))[1] for scenario in scenarios):
            raise ConfigError(
                f"the reward {self.label!r} has nothing to judge by: none of the {len(scenarios)} scenarios has facts "
                "or an entry in the ground truth. Add `facts:` to the scenarios, set ground_truth_file, or leave it out"
            )

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names the scenarios whose episodes will be left unscored."""
        silent = [s.get("id", "?") for s in scenarios if not self._task(_context_of(s))[1]]
        if not silent:
            return []
        return [
            f"reward {self.label!r} cannot judge {len(silent)} of {len(scenarios)} scenarios (first: {silent[0]!r}), "
            "which have neither facts nor ground truth: their episodes are unscored and teach nothing"
        ]

    def _task(self, context: Context) -> tuple[dict[str, Fact], list[str]]:
        """Facts by topic, and the topics that are asked for."""
        truth = self._answers.of(context)
        if truth:
            facts: dict[str, Fact] = dict(truth) if isinstance(truth, Mapping) else {"answer": truth}
            return facts, list(facts)
        facts = dict(context.get("facts") or {})
        topics = context.get("information_provided") or facts
        return facts, [topic for topic in topics if topic in facts]


def score_facts(
    turns: Turns, facts: Mapping[str, Fact], asked: Sequence[str], context: Context | None = None
) -> RewardResult:
    """Credit for the asked facts, minus the costs, never below 0.

    Args:
        turns: the conversation.
        facts: topic to fact.
        asked: the topics that are asked for, at least one.
        context: its scenario's texts are searched for numbers that are not invented.

    Returns:
        The score; its breakdown is `provided` (share of asked topics) and the counts `unasked`, `repeated`, `invented`.
    """
    replies = [exchange.reply for exchange in exchanges(turns)]
    stated = stated_topics(turns, facts)
    known = set().union(*(figures(text) for text in _known_texts(turns, facts, context or {})))
    shares = [0.0] * len(replies)
    counts = {"unasked": 0.0, "repeated": 0.0, "invented": 0.0}

    def charge(kind: str, turn: int, cost: float) -> None:
        counts[kind] += 1
        shares[turn] -= cost

    for topic, places in stated.items():
        if topic in asked:
            best = max(places, key=lambda turn: fluency(replies[turn]))
            shares[best] += fluency(replies[best]) / len(asked)
            for turn in places[1:]:
                charge("repeated", turn, REPEATED_COST)
        elif not any(implies(facts[other], facts[topic]) for other in asked):
            for turn in places:
                charge("unasked", turn, UNASKED_COST)
    for turn, reply in enumerate(replies):
        for figure in sorted(figures(reply) - known):
            known.add(figure)
            charge("invented", turn, INVENTED_COST)
    total = max(0.0, sum(shares))
    provided = sum(topic in stated for topic in asked) / len(asked)
    return RewardResult(total, {"provided": provided, **counts}, turn_rewards=shares if total else [0.0] * len(replies))


def _known_texts(turns: Turns, facts: Mapping[str, Fact], context: Context) -> list[str]:
    scenario = context.get("scenario") or {}
    texts = [str(scenario[key]) for key in ("topic", "context", "agent_context") if scenario.get(key)]
    texts += [turn.content for turn in turns if turn.role != "assistant"]
    return texts + [wording for fact in facts.values() for wording in accepted_wordings(fact)]


def _context_of(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a reward's context that a scenario alone decides."""
    criteria = scenario.get("success_criteria") or {}
    return {
        "scenario_id": scenario.get("id"),
        "ground_truth": scenario.get("ground_truth"),
        "facts": scenario.get("facts"),
        "information_provided": criteria.get("information_provided"),
    }
