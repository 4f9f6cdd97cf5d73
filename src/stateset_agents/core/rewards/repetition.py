"""The repetition penalty: saying the same words again."""

from __future__ import annotations

from ..errors import ConfigError
from .base import Context, RewardFunction, RewardResult, Turns
from .text import exchanges, words


class RepetitionPenalty(RewardFunction):
    """Minus the share of word sequences that the assistant said before, mean over its replies; in [-1, 0].

    A reply is cut into its runs of `ngram` words; a run that stands in the same reply already, or in an earlier one,
    is repeated. A reply shorter than `ngram` words is one run. One without a word gets -1, so that silence is no way
    to avoid repetition.

    It sees words, not meaning: saying the same in other words costs nothing, nor does fresh nonsense ("a1 a2 a3 ...");
    necessary repetition (a product's name of three words, a phone number read out twice) costs like any other. A larger
    `ngram` forgives more. What the user said is not counted: an echo of the user is no repetition here.

    Args:
        weight: see `RewardFunction`.
        ngram: words in a run, at least 1.
        name: see `RewardFunction`.

    Raises:
        ConfigError: ngram is no whole number above 0.
    """

    maximum = 0.0
    ngram: int = 3

    def __init__(self, weight: float = 1.0, ngram: int = 3, name: str = "") -> None:
        super().__init__(weight, name)
        if isinstance(ngram, bool) or not isinstance(ngram, int) or ngram < 1:
            raise ConfigError(f"ngram is {ngram!r}; it must be a whole number of words, at least 1")
        self.ngram = ngram

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Count the runs of each reply that were said before."""
        said: set[tuple[str, ...]] = set()
        scores: list[float] = []
        for part in exchanges(turns):
            found = words(part.reply)
            runs = [tuple(found[i : i + self.ngram]) for i in range(max(1, len(found) - self.ngram + 1))]
            fresh = len(set(runs) - said)
            scores.append(fresh / len(runs) - 1.0 if found else -1.0)
            said.update(runs)
        return RewardResult.mean(scores) if scores else RewardResult(-1.0)
