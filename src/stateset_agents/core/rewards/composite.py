"""Several rewards as one, and whatever can be a reward as one.

Invariant: `weighted_sum` is the plain sum of weight x score, never normalised, and `attainable` is the most that it can
reach; a part that has nothing to judge makes the whole unscored, because a sum that lacks a part cannot be compared
with one that has it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, StatesetError, raised_at
from .base import Context, RewardFunction, RewardResult, Turns
from .function import FunctionReward, accepts
from .group import GroupReward

COMBINATION_METHODS = ("weighted_sum", "average", "min", "max")


class CompositeReward(RewardFunction):
    """Combine rewards.

    Args:
        rewards: reward functions, or anything that `as_reward` accepts.
        combination_method: "weighted_sum" adds weight x score, "average" divides that by the sum of the weights, "min"
            and "max" take the worst and the best score and ignore the weights.
        weight: its own weight, where it is itself part of another.
        name: under which it is reported.

    Raises:
        ConfigError: there is no reward in it, an unknown method, or nothing but zero weights.
    """

    def __init__(
        self,
        rewards: Sequence[RewardFunction | Callable[..., Any]],
        combination_method: str = "weighted_sum",
        weight: float = 1.0,
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        if isinstance(rewards, (str, Mapping)) or not isinstance(rewards, Sequence) or not rewards:
            raise ConfigError(f"a composite reward takes a list of at least one reward, not {rewards!r}")
        if combination_method not in COMBINATION_METHODS:
            close = difflib.get_close_matches(str(combination_method), COMBINATION_METHODS, n=1)
            raise ConfigError(
                f"combination_method is {combination_method!r}, which does not exist."
                + (f" Did you mean {close[0]!r}?" if close else "")
                + f" Known: {', '.join(COMBINATION_METHODS)}"
            )
        self.rewards: dict[str, RewardFunction] = {}
        for index, entry in enumerate(rewards):
            try:
                reward = as_reward(entry)
            except ConfigError as error:
                raise ConfigError(*(f"rewards[{index}]: {text}" for text in error.problems)) from None
            if isinstance(reward, GroupReward):
                raise ConfigError(f"{reward.label} judges groups as a whole and cannot be combined: use it alone")
            label = reward.label
            copies = sum(1 for taken in self.rewards if taken == label or taken.startswith(f"{label}_"))
            self.rewards[f"{label}_{copies + 1}" if label in self.rewards else label] = reward
        self.combination_method = combination_method
        weights = [reward.weight for reward in self.rewards.values()]
        if combination_method == "weighted_sum" and not any(weights):
            raise ConfigError("every weight of the combined rewards is 0, so nothing would be learned; raise one")
        if combination_method == "average" and sum(weights) <= 0:
            raise ConfigError(f"the weights {weights} add up to {sum(weights):g}; an average needs a sum above 0")

    @property
    def attainable(self) -> float | None:
        """The highest score it can give: what success and reports are measured against. None if a part's is unknown."""
        extreme = self.combination_method in ("min", "max")
        shares = [1.0] * len(self.rewards) if extreme else self._shares()
        best = [(share, part.attainable) for share, part in zip(shares, self.rewards.values(), strict=True) if share]
        known = [(share, maximum) for share, maximum in best if maximum is not None]
        if len(known) < len(best):
            return None
        if extreme:
            return {"min": min, "max": max}[self.combination_method](maximum for _, maximum in known)
        return sum(max(0.0, share * maximum) for share, maximum in known)

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Evaluate each part, then combine."""
        results = {label: await reward.evaluate(turns, context) for label, reward in self.rewards.items()}
        for label, result in results.items():
            if result.score is None:
                return RewardResult.unscored(f"{label}: {result.metadata.get('unscored', 'it gave no score')}")
        scores = {label: result.score for label, result in results.items() if result.score is not None}
        if self.combination_method in ("min", "max"):
            chosen = {"min": min, "max": max}[self.combination_method](scores, key=scores.__getitem__)
            return RewardResult(scores[chosen], scores, {"chosen": chosen}, results[chosen].turn_rewards)
        shares = dict(zip(scores, self._shares(), strict=True))
        for label, share in shares.items():
            results[label].weight = share
        total = sum(shares[label] * score for label, score in scores.items())
        return RewardResult(total, scores, turn_rewards=_turn_rewards(results, shares), components=results)

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Ask each part, and report all that object.

        Raises:
            ConfigError: a part cannot judge these scenarios.
        """
        problems: list[str] = []
        for reward in self.rewards.values():
            try:
                reward.require(scenarios)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(*problems)

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """The notices of all parts, each once."""
        return list(dict.fromkeys(note for reward in self.rewards.values() for note in reward.notices(scenarios)))

    def to_config(self) -> dict[str, Any]:
        """`{"functions": [...], "combination_method": ...}`, the mapping form of a config's `rewards`.

        One that is part of another has its weight and name in it too.
        """
        config: dict[str, Any] = {
            "functions": [reward.to_config() for reward in self.rewards.values()],
            "combination_method": self.combination_method,
        }
        if self.weight != 1.0:
            config["weight"] = self.weight
        if self.name:
            config["name"] = self.name
        return config

    def _shares(self) -> list[float]:
        weights = [reward.weight for reward in self.rewards.values()]
        whole = sum(weights) if self.combination_method == "average" else 1.0
        return [weight / whole for weight in weights]


def as_reward(candidate: object) -> RewardFunction:
    """Make a reward of whatever can be one.

    Args:
        candidate: a reward function, a subclass of `RewardFunction` that needs no arguments, an object with a
            `compute_reward` method, a sync or async function of `(turns, context)`, or a list of these (weighted sum).

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(candidate, RewardFunction):
        return _callable(candidate)
    if isinstance(candidate, type) and issubclass(candidate, RewardFunction):
        return _callable(_instance_of(candidate))
    if isinstance(candidate, (list, tuple)):
        return CompositeReward(candidate)
    if not isinstance(candidate, type):
        method = getattr(candidate, "compute_reward", None)
        if callable(method):
            return FunctionReward(method, getattr(candidate, "weight", 1.0), type(candidate).__name__)
        if callable(candidate):
            return FunctionReward(candidate)
    raise ConfigError(
        f"{candidate!r} is not a reward. Pass a RewardFunction such as HelpfulnessReward(), a function "
        "`async def my_reward(turns, context=None) -> float`, or a list of these"
    )


def _callable(reward: RewardFunction) -> RewardFunction:
    """The reward, if what it defines can be called as `evaluate` calls it: a run would find out in its midst."""
    method, called = ("compare", "conversations") if isinstance(reward, GroupReward) else ("compute_reward", "turns")
    function = getattr(reward, method)
    if not accepts(function, called, "context"):
        raise ConfigError(
            f"{type(reward).__name__}.{method}{inspect.signature(function)} cannot be called with ({called}, context); "
            f"define `async def {method}(self, {called}, context=None)`"
        )
    return reward


def _instance_of(kind: type[RewardFunction]) -> RewardFunction:
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise ConfigError(f"the reward class {kind.__name__} does not define {missing}, so it is not a reward yet")
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise ConfigError(
            f"the reward class {kind.__name__} cannot be made without arguments ({error}); pass an instance, or name "
            "one in a config: my_module.my_reward"
        ) from None
    try:
        return kind()
    except StatesetError:
        raise
    except Exception as error:  # the user's own code may raise anything
        place = raised_at(error)
        raise ConfigError(
            f"making the reward {kind.__name__}() raised {type(error).__name__}: {error}"
            + (f" ({place})" if place else "")
            + "; mend its __init__, or give an instance that is made already"
        ) from error


def _turn_rewards(results: Mapping[str, RewardResult], shares: Mapping[str, float]) -> list[float] | None:
    """Weighted sum by turn; a part without turn rewards counts at the end, where it was judged."""
    counts = [len(result.turn_rewards) for result in results.values() if result.turn_rewards]
    if not counts:
        return None
    combined = [0.0] * counts[0]
    for label, result in results.items():
        for i, value in enumerate(result.turn_rewards or [0.0] * (counts[0] - 1) + [result.score or 0.0]):
            combined[i] += shares[label] * value
    return combined
