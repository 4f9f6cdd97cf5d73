"""Services that a run waits for must be found to be down before a limit of seconds is over.

Invariant: with `when_down: wait` an episode is not lost to a service that is down. The limits stand still while a
service is waited for (`core.standstill`), but not while a call is still being tried: so they must be longer than that.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.environment import ConversationEnvironment, Environment
from ..core.errors import ConfigError
from ..core.reward import CompositeReward, RewardFunction
from ..core.users import User
from ..engines.endpoint import Endpoint
from ..environments import MixedUser, ModelUser
from ..rewards.judge_reward import JudgeReward
from .run import Run


def require_time_to_wait(run: Run) -> None:
    """Refuse a limit that is over before a service that is to be waited for is known to be down.

    Raises:
        ConfigError: both keys and both numbers.
    """
    # The judges of a reward are asked one after the other within the limit of one call of the reward.
    judged = sum(model.longest_call for model in _judges(run.reward) if model.when_down == "wait")
    _require(
        run, "reward_timeout", run.config.reward_timeout, judged, "the judge of a reward", ", or lower total_seconds"
    )
    users = (model for environment in (run.environment, run.evaluation) for model in _users(environment))
    spoken = max((model.longest_call for model in users if model.when_down == "wait"), default=0.0)
    _require(run, "environment_timeout", run.config.environment_timeout, spoken, "a user behind a server")


def _require(run: Run, key: str, limit: float | None, needed: float, who: str, or_else: str = "") -> None:
    if limit is None or limit > needed:
        return
    message = (
        f"{key} is {limit:g}, but {who} is tried for up to {needed:g} seconds (total_seconds) before the run "
        f"waits for it, as when_down: wait asks: by then the limit is over, and the episode would be lost.\n"
        f"  set {key} above {needed:g}{or_else}"
    )
    raise ConfigError(run.located(f"training.{key}", message))


def _judges(reward: RewardFunction) -> Iterator[Endpoint]:
    if isinstance(reward, CompositeReward):
        for part in reward.rewards.values():
            yield from _judges(part)
    elif isinstance(reward, JudgeReward) and isinstance(reward.judge.model, Endpoint):
        yield reward.judge.model


def _users(environment: Environment | None) -> Iterator[Endpoint]:
    if isinstance(environment, ConversationEnvironment):
        yield from _spoken_by(environment.user)


def _spoken_by(user: User) -> Iterator[Endpoint]:
    if isinstance(user, MixedUser):
        for one in user.users:
            yield from _spoken_by(one)
    elif isinstance(user, ModelUser) and isinstance(user.model, Endpoint):
        yield user.model
