"""What a TRL run says while it works: a row of metrics for each update, checkpoints in between, and when to stop.

Invariant: the rows have the names and meanings that they have in our own trainer, so that every reader of a run folder
reads this one too. A number that TRL averages over something else is not passed on under our name for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...core.errors import TrainingStopped
from ...core.trajectory import TrajectoryGroup
from ...evaluation import SuccessCriterion, group_metrics, part_means
from ...tracking.health import NEAR_MAXIMUM
from ...tracking.progress import Progress, describe
from ...tracking.run_folder import RunFolder
from ...tracking.sinks import Sinks
from ..stopping import Judge
from .rewards import UnscoredLog
from .weights import finite

log = logging.getLogger(__name__)

FROM_TRL = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction",
}
"""What TRL logs, and our name of it."""


class Reporter(TrainerCallback):
    """Watches TRL's trainer.

    Args:
        folder: where rows and conversations go.
        sinks: where rows are copied to.
        progress: what the user sees; None shows nothing.
        attainable: highest reward of an episode, if known.
        steps: of the run.
        save: writes a checkpoint of this step.
        save_steps: how often; 0: never.
    """

    def __init__(
        self,
        folder: RunFolder,
        sinks: Sinks,
        progress: Progress | None,
        attainable: float | None,
        steps: int,
        save: Callable[[int], None],
        save_steps: int,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stop_reason: str | None = None
        self.stop_requested = False
        self.criterion = SuccessCriterion(attainable)
        self.stated: set[bool] = set()
        self.unscored = UnscoredLog(log.warning)
        self._folder, self._sinks, self._progress = folder, sinks, progress
        self._steps, self._save, self._save_steps = steps, save, save_steps
        self._judge = Judge(None, solved=None if attainable is None else NEAR_MAXIMUM * attainable)
        self._round: dict[str, Any] = {}
        self._episodes = 0
        self._dropped_rows = 0
        self._mark = time.perf_counter()

    def round(self, step: int, groups: Sequence[TrajectoryGroup], dropped_rows: int, seconds: float) -> None:
        """Take note of the conversations that update `step` is the first to train on."""
        episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
        self._episodes += len(episodes)
        self.stated |= {episode.success is not None for group in groups for episode in group.trajectories}
        self._folder.log_trajectories(step, groups)
        self.unscored.update(step, groups)
        self._sinks.sample(step, groups)
        if dropped_rows and not self._dropped_rows:
            log.warning(
                "TRL trains one row of tokens for each conversation, and the history of some was rewritten (a memory "
                "window, an edited reply, or the chat template): %d further rows of this round are not trained. "
                "stateset_agents.train trains them all",
                dropped_rows,
            )
        self._dropped_rows += dropped_rows
        metrics = group_metrics(groups, self.criterion)
        self._round = {
            **metrics,
            **part_means(groups),
            "updated": (metrics["zero_variance_share"] or 0.0) < 1.0 and metrics["reward_mean"] is not None,
            "sampled_tokens": sum(episode.trained_tokens for episode in episodes),
            "dropped_rows": dropped_rows,
            "rollout_seconds": seconds,
        }

    def episode_ended(self, done: int, total: int) -> None:
        """One more conversation of the round is over."""
        self._folder.heartbeat()
        if self._progress is not None:
            self._progress.phase("rolling out", done, total)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop in the middle of a step when that was asked for."""
        self._obey(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after a step when there is a reason to."""
        self._obey(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the row of an update.

        Raises:
            TrainingStopped: its loss is no number, or nothing was learned for too long.
        """
        if not logs or "loss" not in logs:
            return  # TRL's summary at the end
        if not finite(logs["loss"]) or not finite(logs.get("grad_norm", 0.0)):
            raise TrainingStopped(
                f"step {state.global_step}: the loss is {logs['loss']} and the gradient's norm {logs.get('grad_norm')}"
                "; a lower learning_rate is what helps most"
            )
        row = self._row(state.global_step, logs)
        self.rows.append(row)
        self._folder.log_metrics(row)
        self._sinks.log(row)
        if self._progress is not None:
            self._progress.step(row)
        log.info("step %d/%d  loss %.4f  %s", row["step"], self._steps, row["loss"], "  ".join(describe(row)))
        if "updated" in row:
            self.stop_reason = self._judge.after(row)
            self._obey(control)
        if self._save_steps and row["step"] % self._save_steps == 0 and row["step"] < self._steps:
            self._save(row["step"])

    def _row(self, step: int, logs: Mapping[str, Any]) -> dict[str, Any]:
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        taken, self._round = self._round, {}
        row = {ours: float(logs[theirs]) for theirs, ours in FROM_TRL.items() if logs.get(theirs) is not None}
        row |= {"step": step, "episodes": self._episodes, **taken, "seconds": seconds}
        row["train_seconds"] = seconds - taken.get("rollout_seconds", 0.0)
        if taken:
            row["tokens_per_second"] = taken["sampled_tokens"] / seconds
        return row

    def _obey(self, control: TrainerControl) -> None:
        if self.stop_requested or self.stop_reason:
            control.should_training_stop = True
