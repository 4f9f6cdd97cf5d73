"""The shop of `soak.py`: its environment, its tools and its reward fail at times.

Kept beside the run's config, as code of one's own is.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from shop import TASKS, two_were_bought

from stateset_agents.core.environment import TaskEnvironment
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.environments import ModelUser

CHANCE: Any = None
"""A `soak.Chance`, of the process that trains."""


def strikes(kind: str) -> bool:
    """Whether this call fails so."""
    return CHANCE is not None and CHANCE.strikes(kind)


def price(of: str) -> str:
    """The price of a thing."""
    if strikes("a tool raises"):
        raise ValueError("injected: the tool")
    if strikes("a tool blocks its thread"):
        time.sleep(2.0)  # beyond the limit; the thread goes on, and then ends
    return f"${len(of)}"


class UnreliableShop(TaskEnvironment):
    """Customers behind a server, who ask for a price and buy; `buy` fills the basket of the episode."""

    def __init__(self) -> None:
        endpoint = Endpoint(os.environ["SOAK_USER"], "user", seconds=0.4, retries=3, first_wait=0.02)
        super().__init__(TASKS, two_were_bought, max_turns=3, user=ModelUser(endpoint))

    async def reset(self, scenario: Any = None) -> Any:
        """Begin with an empty basket."""
        state = await super().reset(scenario)
        state.context["basket"] = []
        return state

    async def step(self, state: Any, action: Any) -> Any:
        """Let the user answer."""
        if strikes("environment raises"):
            raise OSError("injected: the environment")
        if strikes("environment hangs"):
            await asyncio.sleep(3600)
        return await super().step(state, action)

    def episode_tools(self, state: Any) -> list[dict[str, Any]]:
        """`buy`, which sees the basket."""

        async def filled(of: str) -> str:
            if strikes("a tool raises"):
                raise ValueError("injected: the tool")
            if strikes("a tool hangs"):
                await asyncio.sleep(3600)
            state.context["basket"].append(of)
            return f"{len(state.context['basket'])} in it"

        buy = "Put a thing into the basket."
        return [{"name": "buy", "description": buy, "function": filled, "sequential": True}]


async def served(turns: Any, context: Any = None) -> float:
    """Pays for what is in the basket, for calls that worked, and a little for the letter e, so that samples differ."""
    if strikes("the reward raises"):
        raise ValueError("injected: the reward")
    worked = sum(turn.tool_result is not None and turn.tool_result.ok for turn in turns)
    text = "".join(turn.content for turn in turns if turn.role == "assistant")
    return worked + len(context["state"]["basket"]) + text.count("e") / 10
