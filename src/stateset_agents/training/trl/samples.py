"""Conversations for Weights & Biases, beside the metrics.

Invariant: unlike every other sink this one sends what was said, because the training guide promises generation samples.
So it is made only when a project is named, it says so at the start, and `wandb_samples: 0` keeps conversations here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.secrets import Redactor
from ...core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ...tracking.sinks import WandbSink

COLUMNS = ("step", "scenario", "conversation", "reward", "outcome")


class SamplesSink(WandbSink):
    """Weights & Biases with the first conversations of each step as a table.

    Args:
        project, entity: where to.
        per_step: conversations of each step; 0 sends none.
    """

    def __init__(self, project: str, entity: str | None, per_step: int) -> None:
        super().__init__(project, entity)
        self._per_step = per_step
        self._redactor = Redactor.from_environment()
        self._waiting: list[tuple[int, MultiTurnTrajectory]] = []

    def sample(self, step: int, groups: Sequence[TrajectoryGroup]) -> None:
        """Take note of a round; its first conversations go out with the step's metrics."""
        episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
        self._waiting = [(step, episode) for episode in episodes[: self._per_step]]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics, then the conversations that wait; see `MetricsSink.log`."""
        super().log(step, metrics)
        waiting, self._waiting = self._waiting, []
        if waiting:
            table = self.check().Table(columns=list(COLUMNS), data=[self._row(*one) for one in waiting])
            self._run.log({"train/step": step, "samples": table})

    def _row(self, step: int, episode: MultiTurnTrajectory) -> list[object]:
        said = "\n".join(f"{turn.role}: {turn.content}" for turn in episode.turns)
        return [step, episode.scenario_id, self._redactor(said), episode.reward, episode.outcome.value]
