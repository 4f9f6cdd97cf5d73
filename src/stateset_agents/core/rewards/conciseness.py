"""Conciseness: as long as needed, and no longer."""

from __future__ import annotations

from ..errors import ConfigError
from .base import Context, RewardFunction, RewardResult, Turns
from .text import exchanges, length


class ConcisenessReward(RewardFunction):
    """Whether replies are short enough.

    A reply of up to `optimal_length` words gets 1, from there the score falls in a straight line to 0 at three times
    that length; an empty one gets 0. Being shorter than `optimal_length` earns nothing, so that answers are not driven
    to decay into fragments. A "word" of more than 12 letters counts once for each 12. The episode's score is the mean
    over its assistant turns, times `expected_turns` / turns when the conversation took more turns than expected.

    It sees how long a reply is and nothing else: any short text gets 1.

    Args:
        weight: see `RewardFunction`.
        optimal_length: words in one reply, at least 1.
        name: see `RewardFunction`.

    Raises:
        ConfigError: optimal_length is no whole number above 0.
    """

    maximum = 1.0
    optimal_length: int = 150

    def __init__(self, weight: float = 1.0, optimal_length: int = 150, name: str = "") -> None:
        super().__init__(weight, name)
        if isinstance(optimal_length, bool) or not isinstance(optimal_length, int) or optimal_length < 1:
            raise ConfigError(f"optimal_length is {optimal_length!r}; it must be a whole number of words, at least 1")
        self.optimal_length = optimal_length

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score the length of each assistant turn, and the number of turns."""
        lengths = [length(exchange.reply) for exchange in exchanges(turns)]
        expected = (context or {}).get("expected_turns") or len(lengths)
        patience = min(1.0, expected / max(1, len(lengths)))
        return RewardResult.mean([patience * self._score(count) for count in lengths], words=lengths)

    def _score(self, count: int) -> float:
        over = max(0, count - self.optimal_length)
        return max(0.0, 1.0 - over / (2 * self.optimal_length)) if count else 0.0
