"""Tool success: calls of tools that worked, and no more of them than needed.

Invariant: a call that worked never raises the score by being made again. Of the calls of a tool with the same arguments
one can earn something, each enters the divisor, and calls beyond those that are needed earn nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from ..errors import ConfigError
from ..tool_calls import TOOL, ToolCall, ToolError
from .base import Context, RewardFunction, RewardResult, Turns
from .text import words

WITHOUT_CALLS = ("zero", "unscored")


class ToolSuccessReward(RewardFunction):
    """Share of the tool calls that gave a value.

    A malformed call, an unknown tool, bad arguments, a tool that raised or took too long and a call over the budget all
    count as failures; so does a call that worked, made again with the same arguments. With `needed_calls`, as many of
    them can earn something, and a conversation with fewer is measured against that number too.

    It sees how a call went, not whether it was the right one: a conversation with one successful call of a harmless
    tool that nobody asked for gets 1. Give `needed_calls`, and combine it with `TaskCompletionReward`, which knows what
    had to be done. Asking a tool the same question twice on purpose (has it shipped yet?) costs a share.

    Args:
        weight: see `RewardFunction`.
        needed_calls: how many calls a conversation needs; None measures a conversation by its own calls alone.
        without_calls: what a conversation without calls gets: "zero", or "unscored", which leaves it out of training
            (an agent then learns nothing from not calling). Of no effect with `needed_calls: 0`, which pays 1 for it.
        name: see `RewardFunction`.

    Raises:
        ConfigError: needed_calls is no whole number from 0 on, or without_calls is unknown.
    """

    maximum = 1.0
    needed_calls: int | None = None
    without_calls: str = "zero"

    def __init__(
        self,
        weight: float = 1.0,
        needed_calls: int | None = None,
        without_calls: Literal["zero", "unscored"] = "zero",
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        if isinstance(needed_calls, bool) or not isinstance(needed_calls, int | None) or (needed_calls or 0) < 0:
            raise ConfigError(f"needed_calls is {needed_calls!r}; it must be a whole number of calls, at least 0")
        if without_calls not in WITHOUT_CALLS:
            raise ConfigError(f"without_calls is {without_calls!r}; it must be one of {', '.join(WITHOUT_CALLS)}")
        self.needed_calls = needed_calls
        self.without_calls = without_calls

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Count calls and how they went."""
        assistants = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        needed, calls, earned = self.needed_calls, 0, 0
        earned_at = dict.fromkeys(assistants, 0)
        failures: dict[str, float] = {}
        seen: set[tuple[str, str]] = set()
        for place, identity, error in _calls(turns):
            calls += 1
            if error is not None:
                failures[error.value] = failures.get(error.value, 0.0) + 1.0
            elif identity in seen:
                failures["repeated"] = failures.get("repeated", 0.0) + 1.0
            elif needed is None or earned < needed:
                earned += 1
                earned_at[place] += 1
            if error is None:
                seen.add(identity)
        if not calls and needed == 0:
            return RewardResult(
                1.0 if any(words(turns[place].content) for place in assistants) else 0.0, {"calls": 0.0}
            )
        if not calls and self.without_calls == "unscored":
            return RewardResult.unscored("no tool was called")
        divisor = max(calls, needed or 1)
        shares = [count / divisor for count in earned_at.values()]
        return RewardResult(earned / divisor, {"calls": float(calls), **failures}, turn_rewards=shares)


def _calls(turns: Turns) -> Iterator[tuple[int, tuple[str, str], ToolError | None]]:
    """Each call that somebody answered: the place of its turn, what was called with what, and why it failed."""
    place, open_calls = -1, list[ToolCall]()
    for here, turn in enumerate(turns):
        if turn.role == "assistant":
            place, open_calls = here, list(turn.tool_calls)
        elif turn.role == TOOL and turn.tool_result is not None and place >= 0:
            result = turn.tool_result
            call = next((call for call in open_calls if call.name == result.name), None)
            if call is not None:
                open_calls.remove(call)
            asked = turn.content if call is None else json.dumps(dict(call.arguments), sort_keys=True, default=str)
            yield place, (result.name, asked), result.error
