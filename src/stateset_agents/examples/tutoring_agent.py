"""A tutor whose pupils sit a test: what counts is not what was said but what was learned.

    python -m stateset_agents.examples.tutoring_agent

A lesson is a card with facts, which the tutor sees and the pupil does not. The pupil asks for one fact after the other.
It learns a fact from a reply that states it in 25 words at most, else it asks once more and then gives up on it. At the
end it sits a test with a question for each fact, and answers those that it has learned.

The pupil's progress is in the environment's state, so that any number of pupils are taught at once. The tutor keeps a
note of each pupil of its own: every conversation talks to a fork of the agent, with a copy of its Python state. When a
question comes back, the note tells the tutor that its answer did not help. The reward is the share of right answers.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents import AgentConfig, MultiTurnAgent
from ..agents.base import History
from ..core.environment import Environment, EnvironmentState, EpisodeStatus
from ..core.facts import states_fact
from ..core.reward import RewardFunction, RewardResult
from ..core.scenario import Scenario
from ..core.trajectory import ConversationTurn
from ..evaluation import EvaluationResult
from .program import command_line, learn, run

SYSTEM_PROMPT = "You are a patient tutor. Answer the pupil in one short sentence. Use only this lesson."
LONGEST = 25
"""Words of a reply that a pupil follows."""
LESSONS = {
    "planets": {"the largest planet": "Jupiter", "the hottest planet": "Venus"},
    "triangles": {"the number of sides": "3", "the sum of the angles": "180"},
    "fractions": {"the top number": "numerator", "the bottom number": "denominator"},
    "water": {"the freezing point": "0 degrees", "the boiling point": "100 degrees"},
    "insects": {"the number of legs": "6", "the number of body parts": "3"},
    "music": {"the word for loud": "forte", "the word for soft": "piano"},
}
HELD_OUT = {
    "continents": {"the largest continent": "Asia", "the coldest continent": "Antarctica"},
    "chess": {"the number of squares": "64", "the most powerful piece": "queen"},
    "rocks": {"the rock from lava": "basalt", "the rock from sand": "sandstone"},
    "bones": {"the longest bone": "femur", "the number of bones": "206"},
    "trees": {"the tallest tree": "redwood", "the tree with acorns": "oak"},
    "calendar": {"the shortest month": "February", "the number of weeks": "52"},
}


def lessons(cards: Mapping[str, Mapping[str, str]]) -> list[Scenario]:
    """A pupil for each card."""
    return [
        Scenario(
            id=topic,
            agent_context="\n".join([f"Lesson: {topic}", *(f"{name}: {fact}" for name, fact in card.items())]),
            user_responses=(_question(next(iter(card))),),
            facts=dict(card),
        )
        for topic, card in cards.items()
    ]


def _question(name: str) -> str:
    return f"What is {name}?"


class Classroom(Environment):
    """Pupils that ask, learn or do not, and sit a test.

    A state's context has `progress` (name of a fact to whether it was learned), and at the end `test`.
    """

    scenarios = tuple(lessons(LESSONS))

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """Let the pupil learn from a reply, and ask on."""
        after = state.copy()
        after.turn_count += 1
        facts = after.scenario.facts if after.scenario else {}
        progress: dict[str, bool] = after.context.setdefault("progress", {})
        asked = after.context.get("asked", next(iter(facts), ""))
        said = action if isinstance(action, str) else action.content
        learned = len(said.split()) <= LONGEST and states_fact(said, facts.get(asked, ""))
        again = not learned and asked not in progress
        progress[asked] = learned
        asked = asked if again else next((name for name in facts if name not in progress), "")
        after.context["asked"] = asked
        if asked:
            return after, ConversationTurn("user", _question(asked)), 0.0, False
        after.context["test"] = {_question(name): facts[name] if progress[name] else "I do not know." for name in facts}
        after.status = EpisodeStatus.COMPLETED if all(progress.values()) else EpisodeStatus.FAILED
        return after, None, 0.0, True


class TutoringAgent(MultiTurnAgent):
    """A tutor that notices when a pupil has not understood."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        self.asked: Counter[str] = Counter()  # of one pupil: each conversation has a copy that starts empty

    async def process_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> ConversationTurn:
        """Answer, with a note to oneself where the question came before."""
        self.asked[user_input] += 1
        told = dict(context or {})
        if self.asked[user_input] > 1:
            told["agent_context"] = f"{told.get('agent_context', '')}\nThe pupil did not understand. Say it plainly."
        turn = await super().process_turn(history, user_input, told)
        turn.metadata["asked"] = dict(self.asked)
        return turn


class AssessmentReward(RewardFunction):
    """Share of the test's questions that the pupil answered right."""

    maximum = 1.0

    async def compute_reward(
        self, turns: Sequence[ConversationTurn], context: Mapping[str, Any] | None = None
    ) -> RewardResult:
        """Mark the test; a lesson that was cut before it has no mark."""
        known = context or {}
        test = known.get("state", {}).get("test")
        if test is None:
            return RewardResult.unscored("there was no test")
        right = {name: states_fact(test[_question(name)], fact) for name, fact in known["facts"].items()}
        return RewardResult(sum(right.values()) / len(right), metadata={"right": right})


def repeated(result: EvaluationResult) -> str:
    """How often a pupil had to ask again."""
    asked = [turn.metadata["asked"] for episode in result.episodes for turn in episode.assistant_turns[-1:]]
    return f"questions that had to be asked again: {sum(count > 1 for one in asked for count in one.values())}"


async def tutoring_agent(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt=SYSTEM_PROMPT, temperature=0.8, max_new_tokens=24)
    await learn(TutoringAgent(config), Classroom(), AssessmentReward(), options, lessons(HELD_OUT), also=repeated)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(tutoring_agent, command_line("tutoring_agent", __doc__, episodes=48).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
