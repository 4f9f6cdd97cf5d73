"""What a reward is: turns and a context in, a finite score out.

Invariant: `evaluate` is the one way the framework asks for a score. Whatever a user's reward returns, what comes out
is a `RewardResult` with a finite score, or with None and the reason why nothing could be judged; where there are
turn rewards, there is one for each assistant turn and they add up to the score. Anything else raises, and a reward
that raises is never turned into a score.

The built-in rewards score in [0, 1] and the penalties in [-1, 0]; weights come in only where rewards are combined. A
conversation without a word from the assistant gets the floor from each of them, so that silence is no way out.
"""

from __future__ import annotations

import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any

from ..errors import ConfigError
from ..tool_calls import replies_at
from ..trajectory import ConversationTurn
from .kinds import KINDS, kind_of

LARGEST_SCORE = 1e12
"""Beyond this size, squares and sums of many scores or of the gradients made from them leave what float32 holds."""

Turns = Sequence[ConversationTurn]
Context = Mapping[str, Any]


class RewardType(StrEnum):
    """When a reward looks at a conversation."""

    IMMEDIATE = "immediate"
    """Each assistant turn alone, with the messages it answers. The score is the mean over the turns."""
    DENSE = "dense"
    """Each assistant turn with everything before it. The score is the mean over the turns."""
    CUMULATIVE = "cumulative"
    """The conversation so far, after each assistant turn. The score is that of the whole conversation; what a turn
    changed is its turn reward."""
    SPARSE = "sparse"
    """The whole conversation, once, at its end."""


@dataclass
class RewardResult:
    """What a reward says about a conversation.

    Attributes:
        score: finite, of size `LARGEST_SCORE` at most; None when there is nothing to judge by (the episode is then not
            trained on).
        breakdown: parts of the score, for logs and reports.
        metadata: anything else, JSON-serialisable; `metadata["unscored"]` says why a score is None.
        turn_rewards: the share of each reply in the score, adding up to it, or of each assistant turn where tools were
            called; None if it has no such parts.
        components: results of the rewards that were added up, by name and unweighted; empty if the score is no sum.
        weight: of a component in the sum that it is part of.
    """

    score: float | None
    breakdown: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    turn_rewards: list[float] | None = None
    components: dict[str, RewardResult] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.score is not None:
            self.score = _finite(self.score, "score")
        if self.turn_rewards is not None:
            self.turn_rewards = [_finite(value, f"turn_rewards[{i}]") for i, value in enumerate(self.turn_rewards)]

    @classmethod
    def unscored(cls, reason: str) -> RewardResult:
        """A result that says that, and why, nothing could be judged."""
        return cls(None, metadata={"unscored": reason})

    @classmethod
    def mean(cls, scores: Sequence[float], **metadata: Any) -> RewardResult:
        """The mean of one score for each reply; 0 for a conversation without any."""
        count = len(scores)
        return cls(
            sum(scores) / count if count else 0.0,
            breakdown={f"turn_{i}": score for i, score in enumerate(scores)},
            metadata=metadata,
            turn_rewards=[score / count for score in scores],
        )


class RewardFunction(ABC):
    """Base of all rewards. A subclass needs `compute_reward` and nothing else, not even an `__init__`.

    Attributes:
        weight: what its score is multiplied with where rewards are combined.
        name: under which its score is reported; "" stands for the class's name in snake case without "_reward".
        reward_type: when it looks at a conversation.
        maximum: the highest score it can give, unweighted; None where nobody has said so.
    """

    weight: float = 1.0
    name: str = ""
    reward_type: RewardType = RewardType.SPARSE
    maximum: float | None = None

    def __init__(self, weight: float = 1.0, name: str = "", reward_type: RewardType | str | None = None) -> None:
        self.weight = checked_number(weight, "weight", self.label)
        self.name = checked_name(name, self.label)
        if reward_type is not None:
            self.reward_type = checked_reward_type(reward_type, self.label)

    @abstractmethod
    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score the conversation, or that part of it that `reward_type` says.

        Args:
            turns: user, assistant and tool messages, without the system prompt.
            context: what the environment knows: `scenario`, `scenario_id`, `state`, `facts`, `information_provided`,
                `ground_truth`, `completed_actions`, `required_actions`, `expected_turns`, `outcome`, `success` (the
                environment's verdict); and the agent's `system_prompt`. Each may miss.
        """

    async def evaluate(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Score one conversation as `reward_type` says.

        Raises:
            TypeError: `compute_reward` returned something that is no score.
            ValueError: a score or turn reward is not finite, or the turn rewards do not match turns or score.
        """
        ends = [place + 1 for place in replies_at(turns)]
        if self.reward_type is RewardType.SPARSE or not ends:
            return self._checked(await self._call(turns, context), turns)
        starts = [0, *ends[:-1]] if self.reward_type is RewardType.IMMEDIATE else [0] * len(ends)
        parts = [await self._call(turns[start:end], context) for start, end in zip(starts, ends, strict=True)]
        scores = [part.score for part in parts if part.score is not None]
        if len(scores) < len(parts):
            return next(part for part in parts if part.score is None)
        if self.reward_type is RewardType.CUMULATIVE:
            changes = [after - before for before, after in zip([0.0, *scores], scores, strict=False)]
            return self._checked(RewardResult(scores[-1], parts[-1].breakdown, parts[-1].metadata, changes), turns)
        return self._checked(RewardResult.mean(scores), turns)

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check before a run that the scenarios hold what this reward judges by. By default it needs nothing.

        Raises:
            ConfigError: none of the scenarios can be judged.
        """

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader of the scores should know about how they come about."""
        return []

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards that makes this reward again.

        A built-in reward is written with those of its options that it keeps. Where no entry can make it (a class with
        settings of its own, a function inside another), `"rebuildable": False` in it says so, and `build_rewards`
        refuses it.
        """
        kind = type(self)
        built_in = kind_of(kind)
        if built_in is not None:
            return self._built_in_entry(built_in)
        plain = vars(self).keys() <= {"weight", "name", "reward_type"} and self.reward_type is kind.reward_type
        return self._custom_entry(kind, rebuildable=plain and named(kind) is kind)

    @property
    def attainable(self) -> float | None:
        """The highest score it can give, unweighted: `maximum`. Without it no success rate follows from the score."""
        return self.maximum

    @property
    def label(self) -> str:
        """`name`, or what stands for it."""
        if self.name:
            return self.name
        words = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(self).__name__).strip("_")
        return words.removesuffix("_reward") or words

    def _custom_entry(self, origin: Any, *, rebuildable: bool) -> dict[str, Any]:
        module = f"{getattr(origin, '__module__', None)}.{getattr(origin, '__qualname__', self.label)}"
        entry: dict[str, Any] = {"type": "custom", "module": module, "weight": self.weight}
        if self.name:
            entry["name"] = self.name
        return entry if rebuildable else {**entry, "rebuildable": False}

    def _built_in_entry(self, kind: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The entry of a built-in reward; without `options`, they are the attributes of the same names."""
        entry: dict[str, Any] = {"type": kind, "weight": self.weight}
        if self.name:
            entry["name"] = self.name
        for option in KINDS[kind].options:
            value = getattr(self, option, None) if options is None else options.get(option)
            if value is not None and (option != "reward_type" or value is not type(self).reward_type):
                entry[option] = value.value if isinstance(value, Enum) else value
        return entry

    async def _call(self, turns: Turns, context: Context | None) -> RewardResult:
        try:
            value: Any = self.compute_reward(turns, context)
            return as_result(await value if inspect.isawaitable(value) else value, self.label)
        except Exception as error:
            if not getattr(error, "__notes__", None):  # a composite's part has said already which one it is
                error.add_note(f"reward {self.label!r}")
            raise

    def _checked(self, result: RewardResult, turns: Turns) -> RewardResult:
        """The result with a share for each assistant turn, if it has shares; a call of a tool that has none gets 0."""
        given = result.turn_rewards
        if given is None or result.score is None:
            return result
        answers, count = replies_at(turns), sum(turn.role == "assistant" for turn in turns)
        if len(given) not in (len(answers), count):
            raise ValueError(f"reward {self.label!r} gave {len(given)} turn rewards for {count} assistant turns")
        total = math.fsum(given)
        if not math.isclose(total, result.score, rel_tol=1e-6, abs_tol=1e-6):
            raise ValueError(f"turn rewards of {self.label!r} add up to {total:g}, but its score is {result.score:g}")
        if len(given) == count:
            return result
        shares = dict(zip(answers, given, strict=True))
        spread = [shares.get(place, 0.0) for place, turn in enumerate(turns) if turn.role == "assistant"]
        return replace(result, turn_rewards=spread)


def named(origin: Any) -> object:
    """What stands under the name that a class or function says it has; None where nothing can be imported by it."""
    home = getattr(origin, "__module__", None)
    found: object = sys.modules.get(home) if home and home != "__main__" else None
    for part in str(getattr(origin, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found


def as_result(value: object, label: str) -> RewardResult:
    """What a reward returned, as a `RewardResult`: itself, or a number (also of numpy or torch).

    Raises:
        TypeError: it is neither.
        ValueError: it is not finite, or larger than any score may be.
    """
    if isinstance(value, RewardResult):
        return value
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(
            f"reward {label!r} returned {value!r}; it must return a number or a RewardResult"
            + ("; a `return` is missing?" if value is None else "")
        )
    return RewardResult(value)  # type: ignore[arg-type]


def is_score(number: float) -> bool:
    """Whether a run can compute with this number as a reward: NaN, infinities and huge numbers are none."""
    return math.isfinite(number) and abs(number) <= LARGEST_SCORE


def checked_number(value: object, what: str, label: str) -> float:
    """A weight or maximum (`what` it is) as a float.

    Raises:
        ConfigError: it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{what} of reward {label!r} is {value!r}; it must be a finite number, for example 0.5")
    return float(value)


def checked_name(value: object, label: str) -> str:
    """A name under which scores are reported.

    Raises:
        ConfigError: it is no text.
    """
    if not isinstance(value, str):
        raise ConfigError(f'name of reward {label!r} is {value!r:.80}; it must be a text, for example "politeness"')
    return value


def checked_reward_type(value: RewardType | str, label: str) -> RewardType:
    """A reward type, also by its name.

    Raises:
        ConfigError: there is no such type.
    """
    try:
        return RewardType(value)
    except ValueError:
        known = ", ".join(kind.value for kind in RewardType)
        raise ConfigError(f"reward_type of {label!r} is {value!r}, which does not exist. Known: {known}") from None


def _finite(value: object, what: str) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not is_score(number):
        raise ValueError(f"{what} is {number}; a reward must be a finite number, of size {LARGEST_SCORE:g} at most")
    return number
