"""Rewards that hold the last reply against one right answer.

Invariant: only the last reply is judged, as a whole or from its last `marker` on, so that naming several answers in
turn earns no more than the last of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..facts import accepted_wordings
from ..tool_calls import replies
from .base import Context, RewardFunction, RewardResult, Turns
from .ground_truth import Answers, GroundTruth


class AnswerReward(RewardFunction):
    """Base of these rewards; a subclass says what agrees with an answer, and which texts can be one.

    Args:
        weight: see `RewardFunction`.
        ground_truth: scenario id to its right answer, or one answer for every scenario; an answer is a text or a list
            of accepted texts. Where there is none, the scenario's own `ground_truth` counts.
        ground_truth_file: a file with them, `{"ground_truth": {scenario id: answer}}`.
        marker: what stands before the answer in a reply, such as "Answer:"; a reply without it is wrong.
        name: see `RewardFunction`.

    Raises:
        ConfigError: ground truth is given twice or is none, or marker is no text.
        DataError: the file is missing or malformed.
    """

    maximum = 1.0
    marker: str | None = None

    def __init__(
        self,
        weight: float = 1.0,
        ground_truth: str | Mapping[str, GroundTruth] | None = None,
        ground_truth_file: str | Path | None = None,
        marker: str | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, name)
        if marker is not None and (not isinstance(marker, str) or not marker.strip()):
            raise ConfigError(f'marker is {marker!r}; it must be a text such as "Answer:"')
        self.marker = marker
        self._answers = Answers(ground_truth, ground_truth_file, self.label)

    @property
    def ground_truth(self) -> str | Mapping[str, GroundTruth] | None:
        """What it was given, with a file's contents in place of the file."""
        return self._answers.given

    @abstractmethod
    def agrees(self, said: str, answer: str) -> bool:
        """Whether what was said is this answer."""

    def is_answer(self, text: str) -> bool:
        """Whether a text can be the right answer."""
        return bool(text.strip())

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Compare the last reply with each accepted answer."""
        context = context or {}
        accepted = self._accepted(context)
        if not accepted:
            return RewardResult.unscored(
                f"scenario {context.get('scenario_id', '?')!r} has no ground truth that {self.label!r} can compare with"
            )
        heard = replies(turns)
        said = self._judged(heard[-1].content) if heard else None
        right = said is not None and any(self.agrees(said, answer) for answer in accepted)
        shares = [0.0] * (len(heard) - 1) + [float(right)] if heard else None
        return RewardResult(float(right), {"right": float(right)}, turn_rewards=shares)

    def require(self, scenarios: Sequence[Mapping[str, Any]]) -> None:
        """Check that there is something to compare with.

        Raises:
            ConfigError: no scenario has an answer that can be compared with.
        """
        if scenarios and len(self._silent(scenarios)) == len(scenarios):
            raise ConfigError(
                f"the reward {self.label!r} has nothing to compare with: none of the {len(scenarios)} scenarios has a "
                "ground truth that fits it. Add `ground_truth:` to the scenarios, or set ground_truth_file"
            )

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names the scenarios whose episodes will be left unscored."""
        silent = self._silent(scenarios)
        if not silent:
            return []
        return [
            f"reward {self.label!r} cannot judge {len(silent)} of {len(scenarios)} scenarios (first: {silent[0]!r}), "
            "which have no ground truth that fits it: their episodes are unscored and teach nothing"
        ]

    def _silent(self, scenarios: Sequence[Mapping[str, Any]]) -> list[Any]:
        known = (({"scenario_id": s.get("id"), "ground_truth": s.get("ground_truth")}, s) for s in scenarios)
        return [scenario.get("id", "?") for context, scenario in known if not self._accepted(context)]

    def _accepted(self, context: Context) -> list[str]:
        truth = self._answers.of(context)
        if truth is None or isinstance(truth, Mapping):  # answers by topic are several, not one
            return []
        return [answer for answer in accepted_wordings(truth) if self.is_answer(answer)]

    def _judged(self, reply: str) -> str | None:
        if self.marker is None:
            return reply
        _, found, after = reply.rpartition(self.marker)
        return after if found else None
