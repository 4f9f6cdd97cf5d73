"""How a reply ended, and how an episode ended: the two closed lists of this framework.

Invariant: each reason has one stated policy for reward and for the loss mask. Nothing that the agent did not
cause (a user simulator, an environment or a reward that failed) is ever turned into a reward of the agent.
"""

from __future__ import annotations

from enum import StrEnum


class StopReason(StrEnum):
    """Why the engine stopped one reply."""

    STOP = "stop"
    """An end-of-turn token was sampled. It belongs to the reply and is trained."""
    LENGTH = "length"
    """`max_new_tokens` was reached. The tokens are trained as they are; there is no end-of-turn token to train."""
    CONTEXT = "context"
    """The model's context is full. Treated like `LENGTH`, and the episode ends as truncated."""
    CANCELLED = "cancelled"
    """The caller went away. The reply is never trained."""


class Outcome(StrEnum):
    """How one episode ended. Only `OK` and `TRUNCATED` episodes are scored and trained."""

    OK = "ok"
    """The environment said that the conversation is over."""
    TRUNCATED = "truncated"
    """The context filled up, or the turn limit cut the conversation. Scored and trained like `OK`, counted apart."""
    AGENT = "agent"
    """The agent's own code raised. The episode leaves its group and is counted."""
    USER = "user"
    """The simulated user failed. The episode leaves its group and is counted."""
    ENVIRONMENT = "environment"
    """The environment raised or timed out. The episode leaves its group and is counted."""
    REWARD = "reward"
    """The reward function raised or gave no finite number. The episode leaves its group and is counted."""

    @property
    def scored(self) -> bool:
        """Whether an episode with this outcome has a reward and may enter a group's baseline."""
        return self in (Outcome.OK, Outcome.TRUNCATED)
