"""The loop: roll out and score (or read what was recorded), learn, publish new weights; evaluate and save in between.

Invariant: a step is a function of the weights, the configuration and the step's number. Conversations of step n are
keyed by seed and n, scenarios are a function of seed and position, and the engine's replies depend on nothing else.
Between two steps everything that the next one needs is in the learner, the counters and the callbacks' states. A step
whose evaluation was given up is saved with its row pending: the next part of the run evaluates first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from ..agents.multi_turn import MultiTurnAgent
from ..config.training import TrainingConfig
from ..core.busy import measured as measured_work
from ..core.environment import Environment
from ..core.errors import ModelError, StatesetError, TrainingStopped
from ..core.reward import RewardFunction
from ..core.trajectory import TrajectoryGroup
from ..engines.local import LocalEngine
from ..evaluation import EvaluationResult, SuccessCriterion
from ..tracking.health import NEAR_MAXIMUM
from .adjusting import ADJUSTMENTS, Adjuster, Settings
from .credit import is_spelled, note_credit
from .from_config import build_records
from .giving_up import GivenUp, Patience
from .identity import identity
from .learner import Learner
from .measures import StepMetrics
from .parts import RunParts
from .peak_memory import peak_memory
from .playing import Player
from .preparing import make_learner, require_engine
from .room import require_room
from .saving import Stateful, Subject, keep_best, save_step
from .self_test import SelfTest
from .sources import Draw, RecordedConversations, Rollouts, Source
from .stop_request import StopRequest, StopRequested
from .stopping import Judge, require_a_mean_to_watch, require_something_to_learn

T = TypeVar("T")


class Trainer:
    """One run.

    Args:
        agent: trained in place.
        environment: what it is trained in.
        reward: what it is trained for.
        config: every hyperparameter.
        parts: folder, watchers and so on.

    Raises:
        ConfigError: something is no callback, or two callbacks have the same name.
        DataError: the data file cannot be learned from.
    """

    def __init__(
        self,
        agent: MultiTurnAgent,
        environment: Environment,
        reward: RewardFunction,
        config: TrainingConfig,
        parts: RunParts | None = None,
    ) -> None:
        self.agent = agent
        self.environment = environment
        self.reward = reward
        self.config = config
        self.parts = parts or RunParts()
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        """Steps that are done: the weights moved that often."""
        self.episodes = 0
        self.learner: Learner | None = None
        self.stop_reason: str | None = None
        self.parts.require_callbacks()
        self._criterion = SuccessCriterion(reward.attainable)
        self._stated: set[bool] = set()
        self._player = Player(agent, environment, reward, config, self.parts)
        self._adjuster: Adjuster | None = None
        if config.auto_adjust:
            self._adjuster = Adjuster(Settings(config, self._temperature), reward.attainable)
        self._source = self._make_source()
        require_a_mean_to_watch(config, reward)
        patience = config.plan.patience_evaluations if config.early_stopping else None
        self._judge = Judge(patience, solved=None if reward.attainable is None else NEAR_MAXIMUM * reward.attainable)
        self._stateful: dict[str, Stateful] = {"judge": self._judge}
        """What else is saved, by its name in the run's state."""
        if self._adjuster is not None:
            self._stateful["adjuster"] = self._adjuster
        self.saved_step = 0
        """The step whose state was last saved; 0 before the first time."""
        self._save_seconds = 0.0
        """Of saves since the last row: the row of a step is in its checkpoint, so that the next one tells it."""
        self._pending: dict[str, Any] | None = None
        """The row of a step whose evaluation is still to be made."""
        self._saved_pending = False
        """Whether the state of `saved_step` has such a row."""
        self._engine: LocalEngine | None = None
        self._stop = StopRequest()
        self._cancels = 0
        """How often the task that the run is in had been cancelled before."""
        self._self_test = SelfTest(self.parts)

    @property
    def success_criterion(self) -> str:
        """What counted as success so far, in words."""
        return self._criterion.describe(self._stated)

    @property
    def data(self) -> str | None:
        """SHA-256 of what the run learns from, if that is a file."""
        return self._source.data

    def request_stop(self) -> None:
        """Stop, from any thread: a rollout is given up, and an update that would not end within `grace_period`."""
        self._stop.ask()

    async def prepare(self, compute: str | None = None, *, resumes: bool = False) -> None:
        """Load the model, attach adapters, and give the learner its precision. Needed before `run`; once is enough.

        Args:
            compute: the precision that an earlier part of the run computed in ("bfloat16", "float32"); None lets the
                settings and the machine decide.
            resumes: whether weights of an earlier part of the run follow.

        Raises:
            ConfigError: the agent has adapters, and the settings say nothing of any; or it resumes a run with a KL term
                and is not as it was at the run's beginning.
            DataError: a scenario leaves no room for a reply, or records cannot be rendered or are too long.
            ModelError: the model cannot be loaded, or is not one that this process can train.
        """
        await self.agent.initialize()
        evaluation = self.parts.evaluation
        played = [self.environment] if self.config.data_file is None or evaluation is None else []
        if self.config.data_file is None or self.config.eval_every:
            require_room(self.agent, [*played, *([] if evaluation is None else [evaluation])])
        loaded = self.agent.runtime.model
        if loaded is None and self.data is not None:
            raise ModelError("a model without weights learns nothing from a file: take one with weights")
        if loaded is None or self.learner is not None:
            return
        if self.data is not None:
            await self._unless_stopped(self._source.prepare(self.agent, self.parts))
        self._engine = require_engine(self.agent, self.config, resumes=resumes)
        self.learner = make_learner(loaded, self.config, temperature=self._temperature, compute=compute)
        self.publish()
        if self.learner.note:
            self.parts.say(self.learner.note)

    async def run(self) -> None:
        """Train until the planned end, or until there is a reason to stop (`stop_reason`).

        Raises:
            StopRequested: `request_stop` was called; everything up to the last step is saved if there is a folder.
            TrainingStopped: the run cannot go on and says why.
            StatesetError: what a rollout, a reward or the folder raises.
        """
        plan, parts = self.config.plan, self.parts
        start = self.steps
        task = asyncio.current_task()
        self._cancels = 0 if task is None else task.cancelling()
        for callback in parts.callbacks:
            callback.on_run_start(plan.total_steps, start)
        if parts.progress is not None:
            parts.progress.start(plan.total_steps, start)
        if self._pending is not None:
            await self._complete(self._pending)
        while self.steps < plan.total_steps and not self.stop_reason:
            await self._one_step(self.steps)
        self.save()  # also where the last step is saved: a kill may have left older checkpoints to remove
        for callback in parts.callbacks:
            callback.on_run_end(list(self.rows))

    async def evaluate(
        self, *, samples: int | None = None, key: str = "evaluation", reward: RewardFunction | None = None
    ) -> EvaluationResult:
        """Evaluate the agent as it is, on the held-out scenarios if there are any.

        Args:
            samples: episodes for each scenario; None takes `eval_samples`.
            key: names the sampling noise.
            reward: scores the episodes; None takes the one that is trained for.
        """
        return await self._unless_stopped(self._player.evaluate(samples, key, reward))

    def save(self) -> None:
        """Write a checkpoint of the state after the last step, and remove the oldest ones."""
        folder, learner = self.parts.folder, self.learner
        if folder is None or learner is None:
            return
        begin = time.perf_counter()
        self.parts.phase("saving")
        folder.sync()
        subject = Subject(self.agent, self.environment, self.reward, self.parts.records)
        save_step(folder.checkpoints_dir, subject, learner, self.state_dict(), again=self._saved_pending)
        self.saved_step, self._saved_pending = self.steps, self._pending is not None
        keep_best(folder.checkpoints_dir, self.config.keep_checkpoints, self._judge.early.best_step)
        self.parts.phase("")
        self._save_seconds += time.perf_counter() - begin

    def state_dict(self) -> dict[str, Any]:
        """Counters and watchers, as JSON; weights and optimizer are the learner's."""
        return {
            "step": self.steps,
            "episodes": self.episodes,
            "drawn": self._source.drawn,
            "data": self._source.data,
            "pending": self._pending,
            "stop_reason": self.stop_reason,
            "criterion_stated": sorted(self._stated),
            **{name: part.state_dict() for name, part in self._stateful.items()},
            "callbacks": {callback.name: callback.state_dict() for callback in self.parts.callbacks},
            "config": self.config.fingerprint_fields(),
            **({} if self.learner is None else {"identity": identity(self.learner.device)}),
        }

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Inverse of `state_dict`.

        Args:
            state: from a checkpoint.
            rows: the metrics up to its step, every one.
        """
        self.rows = [dict(row) for row in rows]
        self.steps = int(state["step"])
        self.episodes = int(state["episodes"])
        self._source.drawn = int(state["drawn"])
        self._pending = state["pending"]
        self.stop_reason = state["stop_reason"]
        self._stated = set(state["criterion_stated"])
        for name, part in self._stateful.items():
            if name in state:  # a run of an earlier version goes on without what there was not yet
                part.load_state_dict(state[name])
        for callback in self.parts.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])
        self._adopt()
        self.saved_step, self._saved_pending = self.steps, self._pending is not None
        self.publish()

    def publish(self) -> None:
        """Tell the engine that the weights are those after `steps` steps: what it computed before is void."""
        if self._engine is not None:
            self._engine.weights_changed(self.steps)

    def _make_source(self) -> Source:
        data = build_records(self.config) if self.parts.data is None else self.parts.data
        if data is None:
            curriculum = None if self._adjuster is None else self._adjuster.curriculum
            return Rollouts(self.environment.episode_scenarios(), self.config, self._player.play, curriculum)
        return RecordedConversations(data, self.config)

    @property
    def _temperature(self) -> float:
        """Of the log-probs that are trained. What was recorded is to be likely under the model as it is."""
        return self.agent.config.temperature if self.config.data_file is None else 1.0

    def _adopt(self) -> None:
        """Make the next step with the settings in force."""
        if self._adjuster is None:
            return
        settings = self._adjuster.settings
        self._source.take(settings.config)
        self._player.take(settings.config, settings.temperature)
        if self.learner is not None:
            self.learner.take(settings.config, settings.temperature)

    async def _one_step(self, step: int) -> None:
        begin = time.perf_counter()
        with measured_work() as busy:
            draw = await self._unless_stopped(self._source.groups(step))
        groups = [*draw.kept, *draw.flat]
        rolled = time.perf_counter()
        measured = StepMetrics() if self.learner is None else await self._learn(self.learner, draw)
        self._source.drawn = draw.drawn
        self.steps = step + 1
        self.publish()
        learned = time.perf_counter()
        self.episodes += self._source.episodes(groups)
        if self._adjuster is not None:
            self._adjuster.note(groups)
        row = self._row(step, groups, measured, rolled - begin, learned - rolled)
        row |= {f"{work}_seconds": seconds for work, seconds in busy.seconds.items()}
        if self._source.data is None:
            self._stated |= {episode.success is not None for group in groups for episode in group.trajectories}
            if self.parts.folder is not None:
                self._note_credit(groups)
                self.parts.folder.log_trajectories(self.steps, groups)
            self.parts.sinks.sample(self.steps, groups)
        if self.steps == 1:
            require_something_to_learn(groups, trains=self.learner is not None)
        row["seconds"] = time.perf_counter() - begin
        await self._complete(row)

    async def _learn(self, learner: Learner, draw: Draw) -> StepMetrics:
        loaded = self.agent.runtime.model
        tokenizer = None if loaded is None else loaded.tokenizer
        check = self._self_test.begin(learner, draw.kept, self.steps, self.rows, tokenizer)
        self.parts.phase("learning")
        grace, folder = self.config.grace_period, self.parts.folder
        patience: Patience | None = None
        if grace is not None:
            save = None if folder is None else self._save_seconds
            patience = Patience.of(self._stop, grace, self.rows, save=save, cancels=self._cancels)
        measured: StepMetrics | None = None
        with contextlib.suppress(GivenUp):  # it holds the frames of the update, and they hold tensors
            measured = learner.step(
                draw.kept,
                max_tokens=self.agent.most_tokens(self.environment.max_turns),
                max_new_tokens=self.agent.config.max_new_tokens,
                check=check,
                is_over=None if patience is None else patience.is_over,
            )
        if measured is None:
            made = "made" if folder is None else "made and saved"
            again = ". The resumed run makes it again, with the same result" if folder and self.steps else ""
            self.parts.tell(
                f"the update of step {self.steps + 1} is given up: it could not be {made} within {grace:g} s "
                f"(grace_period){again}"
            )
            await self._unless_stopped(asyncio.sleep(0))  # saves, and ends the run
            raise asyncio.CancelledError  # somebody caught that of the request
        self._self_test.end(check, updated=measured.updated)
        return measured

    def _note_credit(self, groups: Sequence[TrajectoryGroup]) -> None:
        """Write into the conversations what the update made of them."""
        loaded = self.agent.runtime.model
        if self.learner is not None and self.learner.credit is not None and loaded is not None:
            spelled = is_spelled(self.steps, self.config.plan.total_steps)
            note_credit(self.learner.credit, groups, loaded.tokenizer, spelled=spelled)

    async def _complete(self, row: dict[str, Any]) -> None:
        """What follows the update: evaluation, log, verdict, checkpoint."""
        self._pending = row
        begin = time.perf_counter()
        every = self.config.plan.eval_every_steps
        if every and self.steps % every == 0:
            row = row | await self._evaluation_row()
        self._pending = None
        before = row.get("seconds", row["rollout_seconds"] + row["train_seconds"])
        row["seconds"] = before + time.perf_counter() - begin
        parts = (row["rollout_seconds"], row["train_seconds"], row.get("eval_seconds") or 0.0)
        row["other_seconds"] = max(0.0, row["seconds"] - sum(parts))
        row["save_seconds"], self._save_seconds = self._save_seconds, 0.0
        row |= peak_memory(None if self.learner is None else self.learner.device)
        self._after_row(row)
        self._record(row)
        try:
            self.stop_reason = self._judge.after(row)
        except TrainingStopped:
            self.save()
            raise
        every = self.config.plan.save_every_steps
        best = self.config.early_stopping and self._judge.early.best_step == self.steps
        if best or (every and self.steps % every == 0):
            self.save()

    def _after_row(self, row: dict[str, Any]) -> None:
        """Act on the row of a step before it is logged; what is added to it is logged too."""
        move = None if self._adjuster is None else self._adjuster.after([*self.rows, row])
        if move is not None:
            row[ADJUSTMENTS] = [move.to_dict()]
            self.parts.tell(str(move))
            self._judge.renew()
            self._adopt()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; if the run is asked to stop meanwhile, give it up, save and raise `StopRequested`.

        What `work` itself raises is raised too, after saving what was done before it.
        """
        try:
            return await self._stop.unless_asked(work)
        except StopRequested:
            if self.steps:
                self.save()
            raise
        except StatesetError:
            if self.steps:
                with contextlib.suppress(StatesetError):  # the first error is the one to tell
                    self.save()
            raise

    def _row(
        self, step: int, groups: Sequence[TrajectoryGroup], measured: StepMetrics, rollout: float, train: float
    ) -> dict[str, Any]:
        played = self._source.measured(groups, self._criterion)
        sampled = played["sampled_tokens"]
        learned = measured.to_dict() if self.learner is not None else {}
        return {
            "step": step + 1,
            "episodes": self.episodes,
            **learned,
            **played,
            "tokens_per_second": sampled / (rollout + train) if sampled else None,
            "rollout_seconds": rollout,
            "train_seconds": train,
        }

    async def _evaluation_row(self) -> dict[str, Any]:
        result = await self.evaluate()
        for callback in self.parts.callbacks:
            callback.on_evaluation(self.steps, result)
        if self.parts.folder is not None:
            self.parts.folder.log_trajectories(self.steps, result.groups, phase="eval")
        return result.metrics()

    def _record(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.parts.log(row)
