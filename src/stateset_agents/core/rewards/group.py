"""Rewards that judge all conversations of a scenario together: rankings, comparisons.

Invariant: what a conversation gets does not depend on its place in the group. A judge shows a liking for what it reads
first, so the conversations are laid before it in an order drawn from the group's key; and it judges all or none: a
judgement that fails leaves the whole group without a reward.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from .base import Context, RewardFunction, RewardResult, Turns


class GroupReward(RewardFunction):
    """Base of rewards that compare. A subclass needs `compare` and nothing else."""

    @abstractmethod
    async def compare(self, conversations: Sequence[Turns], context: Context | None = None) -> Sequence[float]:
        """Score conversations that began alike, relative to each other.

        Args:
            conversations: of one scenario, in an order that means nothing.
            context: what `RewardFunction.compute_reward` is told and is the scenario's: no `state`, `outcome` or
                `completed_actions`, which each conversation has for itself.

        Returns:
            One finite number for each, in the order given.
        """

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """That its scores compare within a group only."""
        return [f"{self.label} compares conversations with each other: its mean does not tell how good they are"]

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Judge a conversation that has no others beside it."""
        (result,) = await self.evaluate_group([turns], context, "")
        return result

    async def evaluate_group(
        self, conversations: Sequence[Turns], context: Context | None, key: str
    ) -> list[RewardResult]:
        """Lay the conversations before the judge in an order drawn from `key`.

        Args:
            conversations: of one scenario.
            context: of the scenario.
            key: of the group; with the number of conversations it decides the order.

        Returns:
            One result for each conversation, in their own order.

        Raises:
            TypeError: `compare` returned no list of numbers.
            ValueError: it returned another count, or a number that is not finite.
        """
        order = sorted(range(len(conversations)), key=lambda place: _draw(key, place))
        value = self.compare([conversations[place] for place in order], context)
        scores = await value if inspect.isawaitable(value) else value
        scores = scores.tolist() if hasattr(scores, "tolist") else scores  # of an array or a tensor
        ordered = isinstance(scores, Sequence) and not isinstance(scores, (str, bytes))
        if not ordered or not all(isinstance(score, Real) for score in scores):
            raise TypeError(
                f"reward {self.label!r}: compare returned {scores!r:.100}; it must return a list of numbers"
            )
        if len(scores) != len(order):
            raise ValueError(
                f"reward {self.label!r}: compare returned {len(scores)} scores for {len(order)} conversations"
            )
        results = {place: RewardResult(score) for place, score in zip(order, scores, strict=True)}
        return [results[place] for place in range(len(conversations))]


def _draw(key: str, place: int) -> bytes:
    return hashlib.blake2b(f"{key}\0{place}".encode(), digest_size=8).digest()
