"""Task completion: what had to be done was done.

Invariant: an action counts as often as it is required, however often it was done. What was done is the environment's
word, never the assistant's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .base import Context, RewardFunction, RewardResult, Turns


class TaskCompletionReward(RewardFunction):
    """Share of the required actions that were completed; without any, whether the environment calls it a success.

    It compares `context["completed_actions"]` with `context["required_actions"]`. Where nothing is required,
    `context["success"]` gives 1 or 0; where the environment does not say that either, the episode is unscored.

    It sees what the environment recorded and nothing else: not whether an action was done politely, in a sensible
    order or at the first try, and not what was done beyond the required actions, be it harmful. It is fooled where the
    environment is: one that takes a keyword in a reply for an action pays for the keyword.

    Args:
        weight: see `RewardFunction`.
        partial: whether some of the actions earn their share; otherwise all of them or nothing.
        name: see `RewardFunction`.
    """

    maximum = 1.0
    partial: bool = True

    def __init__(self, weight: float = 1.0, partial: bool = True, name: str = "") -> None:
        super().__init__(weight, name)
        self.partial = bool(partial)

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Compare what was done with what was to be done."""
        context = context or {}
        required, completed = (_counted(context.get(key)) for key in ("required_actions", "completed_actions"))
        success = context.get("success")
        if not required and success is None:
            return RewardResult.unscored("the environment requires no action and does not say what success is")
        if not required:
            return RewardResult(float(bool(success)), {"success": float(bool(success))})
        share = (required & completed).total() / required.total()
        missing = sorted((required - completed).elements())
        score = share if self.partial else float(share == 1.0)
        return RewardResult(score, {"completed": share}, {"missing": missing} if missing else {})

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """Says so when scenarios name nothing that has to be done."""
        silent = [s.get("id", "?") for s in scenarios if not (s.get("required_actions") or s.get("success_criteria"))]
        if not silent:
            return []
        return [
            f"reward {self.label!r}: {len(silent)} of {len(scenarios)} scenarios (first: {silent[0]!r}) name neither "
            "required_actions nor success_criteria; unless the environment says what success is, their episodes are "
            "unscored and teach nothing"
        ]


def _counted(actions: Any) -> Counter[str]:
    """Actions by name; one that is more than a name counts as its JSON text."""
    if actions is None or isinstance(actions, str) or not isinstance(actions, Iterable):
        actions = [] if actions is None else [actions]
    return Counter(
        action if isinstance(action, str) else json.dumps(action, sort_keys=True, default=str) for action in actions
    )
