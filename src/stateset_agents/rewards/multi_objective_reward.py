"""Several objectives as one reward.

Invariant: the score is that of `CompositeReward`; its breakdown has each objective's own score.
"""

from __future__ import annotations

from ..core.reward import CompositeReward


class MultiObjectiveReward(CompositeReward):
    """A reward of several objectives, such as `MultiObjectiveReward([HelpfulnessReward(0.7), SafetyReward(0.3)])`.

    Arguments are those of `CompositeReward`.
    """
