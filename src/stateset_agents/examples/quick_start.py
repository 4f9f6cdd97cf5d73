"""Train an agent in one call: a model, scenarios, a reward, and what that made better.

    python -m stateset_agents.examples.quick_start

An agent is told of one article of a shop, and customers ask about it. A reply is good if it states the fact that was
asked for: each scenario has it under `facts`, which the agent never sees. HelpfulnessReward checks that, and takes off
for evasion and for repeating the question. The agent is looked at with articles that it never trains on.

This is the short version; `python -m stateset_agents.examples.quickstart` is the thorough one, in 7 minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..agents import AgentConfig, MultiTurnAgent
from ..core.environment import ConversationEnvironment
from ..core.reward import HelpfulnessReward
from ..core.scenario import Scenario
from .program import command_line, learn, run

SYSTEM_PROMPT = "You are the assistant of a shop. Answer in one short sentence. Use only these facts."
SHELF = {  # article: price, colour, weight
    "lamp": ("$35", "green", "2 kg"),
    "chair": ("$80", "brown", "6 kg"),
    "clock": ("$24", "white", "1 kg"),
    "radio": ("$59", "black", "3 kg"),
    "table": ("$140", "grey", "20 kg"),
    "mirror": ("$66", "silver", "5 kg"),
}
HELD_OUT = {
    "kettle": ("$29", "red", "2 kg"),
    "toaster": ("$41", "blue", "4 kg"),
    "carpet": ("$175", "yellow", "9 kg"),
    "bucket": ("$7", "pink", "1 kg"),
    "ladder": ("$98", "orange", "12 kg"),
    "bench": ("$120", "purple", "15 kg"),
}


def scenarios(shelf: dict[str, tuple[str, str, str]]) -> list[Scenario]:
    """A customer for each article: two questions, and what the answers have to state."""
    return [
        Scenario(
            id=article,
            agent_context=f"Article: {article}\nprice: {price}\ncolour: {colour}\nweight: {weight}",
            user_responses=(f"What does the {article} cost?", "And which colour does it have?"),
            facts={"price": price, "colour": colour},
            success_criteria={"information_provided": ["price", "colour"]},
        )
        for article, (price, colour, weight) in shelf.items()
    ]


async def quick_start(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt=SYSTEM_PROMPT, temperature=0.8, max_new_tokens=32)
    agent = MultiTurnAgent(config)
    environment = ConversationEnvironment(scenarios(SHELF), max_turns=2)
    await learn(agent, environment, HelpfulnessReward(), options, scenarios(HELD_OUT))
    question = [{"role": "system", "content": f"{SYSTEM_PROMPT}\nArticle: vase\nprice: $18"}]
    question.append({"role": "user", "content": "How much is the vase?"})
    print(f"\nHow much is the vase?\n{await agent.generate_response(question)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(quick_start, command_line("quick_start", __doc__, episodes=96).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
