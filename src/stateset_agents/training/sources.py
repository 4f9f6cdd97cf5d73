"""Where a step's scored conversations come from: they are played, or read from a file.

Invariant: a step's conversations depend on the weights, the configuration and how many were drawn before. Asking for
them changes nothing: who goes on to learn from them sets `drawn`, so that a step which is given up has drawn nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..agents.multi_turn import MultiTurnAgent
from ..config.training import TrainingConfig
from ..core.records import Record, digest
from ..core.scenario import Scenario
from ..core.trajectory import TrajectoryGroup
from ..evaluation import SuccessCriterion, group_metrics, part_means
from .curriculum import Curriculum
from .order import SeededOrder
from .parts import RunParts
from .recorded import RecordedGroup, render_records

Groups = list[TrajectoryGroup]
Play = Callable[[Sequence[Scenario], str], Awaitable[Groups]]
"""Plays a group for each scenario; the text is the key of all its noise."""


@dataclass(frozen=True)
class Draw:
    """A step's groups.

    Attributes:
        kept: to train on.
        flat: put aside, because they teach nothing.
        drawn: scenarios or records drawn by then, since the run began.
    """

    kept: Groups
    flat: Groups
    drawn: int


class Source(Protocol):
    """A run's conversations.

    Attributes:
        drawn: scenarios or records drawn so far.
        data: SHA-256 of the records; None for conversations that are played.
    """

    drawn: int
    data: str | None

    def prepare(self, agent: MultiTurnAgent, parts: RunParts) -> Coroutine[Any, Any, None]:
        """Make ready, once, before the first groups are asked for."""
        ...

    def take(self, config: TrainingConfig) -> None:
        """Go on with other settings, in steps of as many episodes."""
        ...

    def groups(self, step: int) -> Coroutine[Any, Any, Draw]:
        """The groups of a step, counted from 0."""
        ...

    def episodes(self, groups: Sequence[TrajectoryGroup]) -> int:
        """How many episodes some groups are."""
        ...

    def measured(self, groups: Sequence[TrajectoryGroup], criterion: SuccessCriterion) -> dict[str, float | None]:
        """Their part of a row in `metrics.jsonl`; None for what does not exist."""
        ...


class Rollouts:
    """Conversations that are played.

    Args:
        scenarios: what on.
        config: how many, and whether groups that teach nothing are drawn again.
        play: plays them.
        curriculum: who rests; None lets nobody rest.
    """

    data: str | None = None

    def __init__(
        self, scenarios: Sequence[Scenario], config: TrainingConfig, play: Play, curriculum: Curriculum | None = None
    ) -> None:
        self.drawn = 0
        self._order = SeededOrder(scenarios, config.seed)
        self._config = config
        self._play = play
        self._curriculum = curriculum or Curriculum()

    def take(self, config: TrainingConfig) -> None:
        """See `Source.take`."""
        self._config = config

    async def prepare(self, agent: MultiTurnAgent, parts: RunParts) -> None:
        """Nothing is to be made ready."""

    async def groups(self, step: int) -> Draw:
        """See `Source.groups`. Dynamic sampling (DAPO, 2503.14476) puts aside those with all rewards equal."""
        per_step, again = self._config.plan.groups_per_step, self._config.dynamic_sampling
        kept: Groups = []
        flat: Groups = []
        drawn = self.drawn
        for attempt in range(1 + again):
            wanted = per_step - len(kept)
            if not wanted:
                break
            scenarios, drawn = self._curriculum.draw(self._order, drawn, wanted)
            key = f"{self._config.seed}/{step}" + (f"/{attempt}" if attempt else "")
            for group in await self._play(scenarios, key):
                (kept if group.teaches or not again else flat).append(group)
        return Draw(kept, flat, drawn)

    def episodes(self, groups: Sequence[TrajectoryGroup]) -> int:
        """Every conversation, failed ones included."""
        return sum(len(group.trajectories) + len(group.failures) for group in groups)

    def measured(self, groups: Sequence[TrajectoryGroup], criterion: SuccessCriterion) -> dict[str, float | None]:
        """See `group_metrics` and `part_means`, and the tokens that were sampled."""
        episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
        sampled = sum(episode.trained_tokens for episode in episodes)
        return {**group_metrics(groups, criterion), **part_means(groups), "sampled_tokens": sampled}


_OF_REWARDS = (
    "reward_mean",
    "reward_std",
    "reward_min",
    "reward_max",
    "reward_diversity",
    "zero_variance_share",
    "success_rate",
)


class RecordedConversations:
    """Conversations that are read.

    Args:
        records: of the data file.
        config: how many a step reads, and the seed of their order.
    """

    def __init__(self, records: Sequence[Record], config: TrainingConfig) -> None:
        self.drawn = 0
        self.data: str | None = digest(records)
        self.records = records
        self._config = config
        self._order: SeededOrder[RecordedGroup] | None = None

    async def prepare(self, agent: MultiTurnAgent, parts: RunParts) -> None:
        """Take the records as the agent's model reads them.

        Raises:
            DataError: see `render_records`.
        """
        rendered = await render_records(self.records, agent, parts.counter("reading", len(self.records)))
        self._order = SeededOrder(rendered, self._config.seed)

    def take(self, config: TrainingConfig) -> None:
        """See `Source.take`."""
        self._config = config

    async def groups(self, step: int) -> Draw:
        """See `Source.groups`: every record once before any comes again."""
        if self._order is None:
            raise RuntimeError("the records were not rendered: call prepare first")
        count = self._config.plan.groups_per_step
        read = self._order.at(self.drawn, count)
        return Draw([one.to_group() for one in read], [], self.drawn + count)

    def episodes(self, groups: Sequence[TrajectoryGroup]) -> int:
        """Records."""
        return len(groups)

    def measured(self, groups: Sequence[TrajectoryGroup], criterion: SuccessCriterion) -> dict[str, float | None]:
        """Counts and lengths: nobody judged these conversations, and nothing was sampled."""
        return {
            **group_metrics(groups, criterion),
            **dict.fromkeys(_OF_REWARDS),
            "step_episodes": len(groups),
            "sampled_tokens": 0,
        }
