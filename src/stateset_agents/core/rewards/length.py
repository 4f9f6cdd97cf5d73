"""The length penalty: replies outside a band of words."""

from __future__ import annotations

from ..errors import ConfigError
from .base import Context, RewardFunction, RewardResult, Turns
from .text import exchanges, length


class LengthPenalty(RewardFunction):
    """Nothing for replies of `min_words` to `max_words` words, up to -1 outside; mean over the replies, in [-1, 0].

    Below the band the penalty grows in a straight line to -1 for a reply without a word, above it to -1 at `max_words`
    plus `margin`. A "word" of more than 12 letters counts once for each 12.

    It sees how long a reply is and nothing else: any filler of the right length is as good as an answer. A `min_words`
    above a few words pays for padding; the penalty is meant to keep another reward from being won by length.

    Args:
        weight: see `RewardFunction`.
        max_words: the longest reply that costs nothing.
        min_words: the shortest one, at least 1.
        margin: words beyond max_words over which the penalty grows to -1; None: as many as max_words.
        name: see `RewardFunction`.

    Raises:
        ConfigError: a number of words is no whole number from 1 on, or min_words is more than max_words.
    """

    maximum = 0.0
    max_words: int = 150
    min_words: int = 1
    margin: int | None = None

    def __init__(
        self,
        weight: float = 1.0,
        max_words: int = 150,
        min_words: int = 1,
        margin: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        for key, value in {"max_words": max_words, "min_words": min_words, "margin": margin}.items():
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and not (key == "margin" and value is None):
                raise ConfigError(f"{key} is {value!r}; it must be a whole number of words, at least 1")
        if min_words > max_words:
            raise ConfigError(f"min_words is {min_words}, which is more than max_words, {max_words}")
        self.max_words, self.min_words, self.margin = max_words, min_words, margin

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score the length of each reply."""
        lengths = [length(part.reply) for part in exchanges(turns)]
        if not lengths:
            return RewardResult(-1.0)
        return RewardResult.mean([self._score(count) for count in lengths], words=lengths)

    def _score(self, count: int) -> float:
        below = max(0, self.min_words - count) / self.min_words
        above = max(0, count - self.max_words) / (self.margin or self.max_words)
        return 0.0 - min(1.0, below + above)
