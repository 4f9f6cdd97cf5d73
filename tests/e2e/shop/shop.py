"""A shop whose tools take their time, another one at each call, and change what the episode holds."""

import asyncio
import random
import time

from stateset_agents.core.environment import TaskEnvironment

CLOCK = random.SystemRandom()
"""No run has the same waits as another: whatever depends on them differs."""

TASKS = [
    {
        "id": thing,
        "goal": f"Two of {thing} are bought",
        "user_responses": [f"How much is the {thing}?", "I buy it.", "And one more."],
    }
    for thing in ("tea", "rum", "pie")
]


def price(of: str) -> str:
    """The price of a thing."""
    time.sleep(CLOCK.uniform(0.01, 0.05))
    return f"${len(of)}"


async def buy(of: str) -> str:
    """Put a thing into the basket."""
    await asyncio.sleep(CLOCK.uniform(0.01, 0.05))
    return "1 in it"


def two_were_bought(turns, context):
    """The criterion."""
    return sum(turn.tool_result is not None and turn.content == "2 in it" for turn in turns) > 0


class Shop(TaskEnvironment):
    """Customers who ask for a price and buy. `buy` belongs to the episode, whose basket it fills."""

    def __init__(self):
        super().__init__(TASKS, two_were_bought, max_turns=3)

    async def reset(self, scenario=None):
        """Begin with an empty basket."""
        state = await super().reset(scenario)
        state.context["basket"] = []
        return state

    def episode_tools(self, state):
        """`buy`, which sees the basket."""

        async def filled(of: str) -> str:
            await buy(of)
            state.context["basket"].append(of)
            return f"{len(state.context['basket'])} in it"

        return [{"name": "buy", "description": buy.__doc__, "function": filled, "sequential": True}]


async def served(turns, context=None):
    """Pays for what is in the basket, for calls that worked, and a little for the letter e, so that samples differ."""
    await asyncio.sleep(CLOCK.uniform(0, 0.01))
    worked = sum(turn.tool_result is not None and turn.tool_result.ok for turn in turns)
    text = "".join(turn.content for turn in turns if turn.role == "assistant")
    return worked + len(context["state"]["basket"]) + text.count("e") / 10
