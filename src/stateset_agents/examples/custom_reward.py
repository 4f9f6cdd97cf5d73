"""Rewards of one's own: a class that explains its score, and a plain function.

    python -m stateset_agents.examples.custom_reward

The agent learns a manner: brief replies that end with a question to the customer. `Brevity` is a class: its
`compute_reward` gets the turns and what the environment knows, and returns a score, with parts and a share for each
reply if it has them. `asks_back` is a function with a decorator, scored for each reply alone (RewardType.IMMEDIATE).

Both look at form alone and are fooled by it: "Why?" earns everything. Try what fools a reward of yours before you train
for it: `grpo-reward-lab my_rewards.Brevity` (docs/reward-lab.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents import AgentConfig, MultiTurnAgent
from ..core.environment import ConversationEnvironment
from ..core.reward import CompositeReward, RewardFunction, RewardResult, RewardType, reward_function
from ..core.scenario import Scenario
from ..core.tool_calls import replies
from ..core.trajectory import ConversationTurn
from .program import command_line, learn, run

WORDS = 15
"""As many as a reply may have."""
OPENINGS = {
    "trip": "I would like to go on a trip.",
    "laptop": "I need a new laptop.",
    "dinner": "What can I cook tonight?",
    "present": "I need a present for my sister.",
    "garden": "I want to plant something.",
    "sport": "I would like to do more sport.",
}
HELD_OUT = {
    "book": "I would like to read a book.",
    "bicycle": "I need a new bicycle.",
    "breakfast": "What can I have for breakfast?",
    "party": "I want to give a party.",
    "language": "I would like to learn a language.",
    "room": "I want to paint my room.",
}


class Brevity(RewardFunction):
    """1 for a reply of 3 to 15 words, less for a longer one, down to 0 at twice that; 0 for hardly a word."""

    maximum = 1.0

    async def compute_reward(
        self, turns: Sequence[ConversationTurn], context: Mapping[str, Any] | None = None
    ) -> RewardResult:
        """Count the words of each reply."""
        lengths = [len(turn.content.split()) for turn in replies(turns)]
        scores = [0.0 if words < 3 else min(1.0, max(0.0, 2 - words / WORDS)) for words in lengths]
        return RewardResult.mean(scores, words=lengths)


@reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE, maximum=1.0)
async def asks_back(turns: Sequence[ConversationTurn], context: Mapping[str, Any] | None = None) -> float:
    """Whether the reply ends with a question."""
    return float(turns[-1].content.strip().endswith("?"))


def scenarios(openings: Mapping[str, str]) -> list[Scenario]:
    """A customer with a wish and one more line."""
    return [Scenario(id=name, user_responses=(line, "I am not sure.")) for name, line in openings.items()]


async def custom_reward(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(
        options.model, system_prompt="Help the customer to find out what they want.", temperature=0.8, max_new_tokens=40
    )
    reward = CompositeReward([Brevity(weight=0.5), asks_back])
    environment = ConversationEnvironment(scenarios(OPENINGS), max_turns=2)
    await learn(MultiTurnAgent(config), environment, reward, options, scenarios(HELD_OUT))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(custom_reward, command_line("custom_reward", __doc__, episodes=96).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
