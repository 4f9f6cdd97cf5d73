"""Plain functions as rewards.

Invariant: a decorated function is a `RewardFunction` and can still be called as the function that it was.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from ..errors import ConfigError
from .base import Context, RewardFunction, RewardResult, RewardType, Turns, as_result, checked_number, named

Scorer = Callable[..., Any]
"""`(turns, context)` or `(turns)` to a number or a `RewardResult`; sync or async."""


class FunctionReward(RewardFunction):
    """A function as a reward.

    Args:
        function: takes `(turns, context)` or `(turns)`; may be async. It runs in the event loop, so one that waits for
            something should be async.
        weight: see `RewardFunction`.
        name: by default the function's own name.
        reward_type: see `RewardType`.
        maximum: the highest score that it can give, if that is known.
    """

    def __init__(
        self,
        function: Scorer,
        weight: float = 1.0,
        name: str = "",
        reward_type: RewardType | str = RewardType.SPARSE,
        maximum: float | None = None,
    ) -> None:
        self.function = function
        self.with_context = _takes_context(function)
        super().__init__(weight, name or getattr(function, "__name__", type(function).__name__), reward_type)
        self.maximum = None if maximum is None else checked_number(maximum, "maximum", self.label)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Call the function and check what it returned."""
        value = self.function(turns, context) if self.with_context else self.function(turns)
        return as_result(await value if inspect.isawaitable(value) else value, self.label)

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards that imports this function again."""
        found = named(self.function)
        if isinstance(found, FunctionReward):
            again = found.function is self.function
            again = again and (found.reward_type, found.maximum) == (self.reward_type, self.maximum)
        else:
            again = found is self.function and self.reward_type is RewardType.SPARSE and self.maximum is None
        return self._custom_entry(self.function, rebuildable=again)


@overload
def reward_function(function: Scorer, /) -> FunctionReward: ...


@overload
def reward_function(
    *,
    weight: float = 1.0,
    reward_type: RewardType | str = RewardType.SPARSE,
    name: str = "",
    maximum: float | None = None,
) -> Callable[[Scorer], FunctionReward]: ...


def reward_function(
    function: Scorer | None = None,
    /,
    *,
    weight: float = 1.0,
    reward_type: RewardType | str = RewardType.SPARSE,
    name: str = "",
    maximum: float | None = None,
) -> FunctionReward | Callable[[Scorer], FunctionReward]:
    """Decorator that makes a reward of a function: `@reward_function(weight=0.5)`, or bare `@reward_function`.

    Args:
        function: `(turns, context=None)` to a number or a `RewardResult`; sync or async.
        weight: what its score is multiplied with where rewards are combined.
        reward_type: when it looks at a conversation.
        name: under which it is reported; by default the function's name.
        maximum: the highest score that it can give. Success (half of it) and "solved" are judged by it; without it a
            run reports neither, unless the environment states what success is.

    Raises:
        ConfigError: what is decorated cannot be called with turns, weight or maximum is no finite number, or the type
            is unknown.
    """
    if function is not None:
        return FunctionReward(function, weight, name, reward_type, maximum)
    return lambda decorated: FunctionReward(decorated, weight, name, reward_type, maximum)


def accepts(function: Callable[..., Any], *arguments: str) -> bool:
    """Whether a function can be called with that many arguments in a row; one that does not say is believed."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # written in C
        return True
    except TypeError:
        return False
    return True


def _takes_context(function: Scorer) -> bool:
    """Whether a function takes `(turns, context)`; it may also take `(turns)`.

    Raises:
        ConfigError: it takes neither.
    """
    if not callable(function):
        raise ConfigError(f"{function!r} cannot be called, so it is not a reward function")
    if accepts(function, "turns", "context"):
        return True
    if accepts(function, "turns"):
        return False
    raise ConfigError(
        f"the reward function {getattr(function, '__name__', function)}{inspect.signature(function)} cannot be called "
        "with (turns, context) or (turns)"
    )
