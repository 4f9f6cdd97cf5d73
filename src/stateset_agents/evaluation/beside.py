"""The built-in rewards beside the one that an agent is judged by.

Invariant: what is measured beside never moves the score, the verdict on success or who failed. What cannot be measured
is left out, and no number stands in for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from ..core.reward import (
    CompositeReward,
    ConcisenessReward,
    EngagementReward,
    GroupReward,
    HelpfulnessReward,
    RewardFunction,
    RewardResult,
    SafetyReward,
    TaskCompletionReward,
)
from ..core.rewards.base import Context, Turns

BESIDE: dict[str, type[RewardFunction]] = {
    "engagement": EngagementReward,
    "helpfulness": HelpfulnessReward,
    "safety": SafetyReward,
    "conciseness": ConcisenessReward,
    "task_completion": TaskCompletionReward,
}
"""What is measured beside, by the name of the part."""


def with_built_ins(reward: RewardFunction, names: Collection[str]) -> RewardFunction:
    """A reward that gives the same scores and says in its breakdown what the built-in ones would.

    Args:
        reward: what is judged by. Where it has one of them as a part, that one is asked, with its own settings.
        names: of `BESIDE`.
    """
    own = {type(part): part for part in _parts(reward)}
    beside = {name: own.get(kind) or kind() for name, kind in BESIDE.items() if name in names}
    return _GroupBeside(reward, beside) if isinstance(reward, GroupReward) else _Beside(reward, beside)


class _Beside(RewardFunction):
    def __init__(self, reward: RewardFunction, beside: dict[str, RewardFunction]) -> None:
        super().__init__(name=reward.label)
        self._reward, self._beside = reward, beside

    @property
    def attainable(self) -> float | None:
        return self._reward.attainable

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        result = await self._reward.evaluate(turns, context)
        return await _completed(result, self._beside, turns, context)


class _GroupBeside(GroupReward):
    """For a reward that compares: what an environment recorded of one conversation is not told here."""

    def __init__(self, reward: GroupReward, beside: dict[str, RewardFunction]) -> None:
        super().__init__(name=reward.label)
        self._reward = reward
        self._beside = {name: part for name, part in beside.items() if name != "task_completion"}

    @property
    def attainable(self) -> float | None:
        return self._reward.attainable

    async def compare(self, conversations: Sequence[Turns], context: Context | None = None) -> Sequence[float]:
        return await self._reward.compare(conversations, context)

    async def evaluate_group(
        self, conversations: Sequence[Turns], context: Context | None, key: str
    ) -> list[RewardResult]:
        results = await self._reward.evaluate_group(conversations, context, key)
        return [
            await _completed(result, self._beside, turns, context)
            for result, turns in zip(results, conversations, strict=True)
        ]


async def _completed(
    result: RewardResult, beside: dict[str, RewardFunction], turns: Turns, context: Context | None
) -> RewardResult:
    measured = dict(result.breakdown)
    for name, part in beside.items():
        if name not in measured and (score := (await part.evaluate(turns, context)).score) is not None:
            measured[name] = score
    return replace(result, breakdown=measured)


def _parts(reward: RewardFunction) -> Iterator[RewardFunction]:
    yield reward
    if isinstance(reward, CompositeReward):
        for part in reward.rewards.values():
            yield from _parts(part)
