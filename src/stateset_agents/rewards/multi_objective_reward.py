"""Several objectives as one reward.

Invariant: the score is that of `CompositeReward`, and each objective's own, unweighted score is in the breakdown under
its name; so it is in the episode's log, as `reward/<name>` in each step's metrics, and in an evaluation's components.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.reward import CompositeReward, RewardFunction, as_reward, build_rewards
from ..core.rewards.base import checked_number

Objectives = Sequence[RewardFunction | Callable[..., Any]] | Mapping[str, Any]


class MultiObjectiveReward(CompositeReward):
    """A reward of several objectives.

        MultiObjectiveReward([HelpfulnessReward(0.7), SafetyReward(0.3)])
        MultiObjectiveReward({"helpfulness": 0.7, "safety": 0.3})
        MultiObjectiveReward({"answers": CorrectnessReward(), "short": LengthPenalty(max_words=60)},
                             weights={"answers": 1.0, "short": 0.5})

    In a config the entries of `rewards` and `combination_method` are this reward.

    It sees what its objectives see. With `weighted_sum` and `average` a policy may give up an objective that is hard
    for one that is easy; `min` lets none be given up, and hides every objective but the worst from training.

    Args:
        objectives: rewards; or by name a reward or, for a built-in one that needs no options, its weight.
        combination_method: "weighted_sum" adds weight x score, "average" divides that by the sum of the weights, "min"
            and "max" take the worst and the best score and ignore the weights.
        weight: its own weight, where it is itself part of another.
        name: under which it is reported.
        weights: by an objective's name its weight, in place of its own.

    Raises:
        ConfigError: as `CompositeReward`; a name is no built-in reward or no objective's, or weights are given that the
            combination ignores.
    """

    def __init__(
        self,
        objectives: Objectives,
        combination_method: str = "weighted_sum",
        weight: float = 1.0,
        name: str = "",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        made = _named(objectives) if isinstance(objectives, Mapping) else objectives
        super().__init__(made, combination_method, weight, name)
        if weights is None:
            return
        if combination_method in ("min", "max"):
            raise ConfigError(f"weights have no effect on the {combination_method} of the objectives; leave them out")
        if not isinstance(weights, Mapping):
            raise ConfigError(f"weights is {weights!r:.80}; it must map the objectives to numbers")
        unknown = [str(key) for key in weights if key not in self.rewards]
        if unknown:
            raise ConfigError(f"weights name {', '.join(unknown)}; the objectives are {', '.join(self.rewards)}")
        weighed = [
            _with(reward, weight=checked_number(weights.get(key, reward.weight), "weight", key))
            for key, reward in self.rewards.items()
        ]
        super().__init__(weighed, combination_method, weight, name)


def _named(objectives: Mapping[str, Any]) -> list[RewardFunction]:
    """Rewards that bear their names; the caller's own stay as they are."""
    made: list[RewardFunction] = []
    for name, objective in objectives.items():
        by_weight = not isinstance(objective, bool) and isinstance(objective, int | float)
        try:
            if by_weight:
                made.append(_only_part(build_rewards([{"type": name, "weight": objective}], "max")))
            else:
                made.append(_with(as_reward(objective), name=str(name)))
        except ConfigError as error:
            place = f"objectives[{name!r}]"
            texts = [text.replace("rewards[0]", place) if by_weight else f"{place}: {text}" for text in error.problems]
            raise ConfigError(*texts) from None
    return made


def _only_part(reward: RewardFunction) -> RewardFunction:
    return next(iter(reward.rewards.values())) if isinstance(reward, CompositeReward) else reward


def _with(reward: RewardFunction, **changes: Any) -> RewardFunction:
    changed = copy.copy(reward)
    for key, value in changes.items():
        setattr(changed, key, value)
    return changed
