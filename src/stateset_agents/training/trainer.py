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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import prune_checkpoints
from ..checkpoints.locate import step_folder
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.errors import ConfigError, ModelError, StatesetError, TrainingStopped
from ..core.records import Record
from ..core.reward import RewardFunction
from ..core.scenario import Scenario
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..engines.local import LocalEngine
from ..evaluation import EvaluationResult, SuccessCriterion, evaluate
from ..models import attach_lora, has_lora
from ..rollouts import collect_groups
from ..tracking.health import NEAR_MAXIMUM
from ..tracking.progress import Progress
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import Sinks
from .callbacks import Callback
from .credit import is_spelled
from .from_config import build_records
from .learner import Learner
from .measures import StepMetrics
from .recorded import render_records
from .room import require_room
from .saving import Subject, save_run_state
from .sources import RecordedConversations, Rollouts, Source
from .stopping import Judge, require_a_mean_to_watch, require_something_to_learn

T = TypeVar("T")


class StopRequested(Exception):
    """Somebody asked the run to stop; it is between two steps."""


@dataclass
class RunParts:
    """What a run may have beside the agent, the environment and the reward.

    Attributes:
        folder: where metrics, conversations and checkpoints go; None keeps them in memory only.
        evaluation: environment whose scenarios are evaluated; None evaluates on the training scenarios.
        callbacks: watchers.
        progress: what the user sees.
        sinks: where metrics are copied to.
        records: more JSON for checkpoints, by stem.
        data: what `data_file` holds, for a run that learns from a file; None reads it.
    """

    folder: RunFolder | None = None
    evaluation: Environment | None = None
    callbacks: Sequence[Callback] = ()
    progress: Progress | None = None
    sinks: Sinks = field(default_factory=Sinks)
    records: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Record] | None = None


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
        for place, callback in enumerate(self.parts.callbacks):
            if not isinstance(callback, Callback):
                raise ConfigError(
                    f"callbacks[{place}] is {callback!r}; it must be an instance of a subclass of Callback, "
                    "for example DiagnosticsMonitor()"
                )
        names = [callback.name for callback in self.parts.callbacks]
        if len(set(names)) != len(names):
            raise ConfigError(f"two callbacks have the same name: {', '.join(names)}; give one another `name`")
        self._criterion = SuccessCriterion(reward.attainable)
        self._stated: set[bool] = set()
        self._source = self._make_source()
        require_a_mean_to_watch(config, reward)
        patience = config.plan.patience_evaluations if config.early_stopping else None
        self._judge = Judge(patience, solved=None if reward.attainable is None else NEAR_MAXIMUM * reward.attainable)
        self.saved_step = 0
        """The step whose state was last saved; 0 before the first time."""
        self._pending: dict[str, Any] | None = None
        self._engine: LocalEngine | None = None
        self._stop = asyncio.Event()

    @property
    def success_criterion(self) -> str:
        """What counted as success so far, in words."""
        return self._criterion.describe(self._stated)

    @property
    def data(self) -> str | None:
        """SHA-256 of what the run learns from, if that is a file."""
        return self._source.data

    def request_stop(self) -> None:
        """Stop as soon as nothing is lost by it: a rollout is given up, an update is finished."""
        self._stop.set()

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
        await self._render()
        engine = self.agent.runtime.engine
        if not isinstance(engine, LocalEngine):
            raise ModelError("only a model in this process can be trained: the agent's engine is a remote one")
        self._engine = engine
        if resumes and engine.version and self.config.beta and self.config.lora is None:
            raise ConfigError(
                "this agent was trained already, and beta needs the weights with which the run began: resume with an "
                "agent that is made anew"
            )
        settings = self.config.lora
        if settings is None and has_lora(loaded):
            raise ConfigError(
                "the agent has LoRA adapters from an earlier training: set lora to train them further, or load the "
                "agent from what was saved, where they are merged"
            )
        if settings is not None and not has_lora(loaded):
            attach_lora(
                loaded,
                r=settings.r,
                alpha=settings.alpha,
                target_modules=settings.target_modules or "all-linear",
                seed=self.config.seed,
            )
        self.learner = Learner(
            loaded,
            self.config,
            total_steps=self.config.plan.total_steps,
            warmup_steps=self.config.plan.warmup_steps,
            temperature=self._temperature,
            compute=compute,
        )
        self.publish()
        if self.learner.note and self.parts.progress is not None:
            self.parts.progress.say(self.learner.note)

    async def run(self) -> None:
        """Train until the planned end, or until there is a reason to stop (`stop_reason`).

        Raises:
            StopRequested: `request_stop` was called; everything up to the last step is saved if there is a folder.
            TrainingStopped: the run cannot go on and says why.
            StatesetError: what a rollout, a reward or the folder raises.
        """
        plan, parts = self.config.plan, self.parts
        start = self.steps
        for callback in parts.callbacks:
            callback.on_run_start(plan.total_steps, start)
        if parts.progress is not None:
            parts.progress.start(plan.total_steps, start)
        if self._pending is not None:
            await self._complete(self._pending)
        while self.steps < plan.total_steps and not self.stop_reason:
            await self._one_step(self.steps)
        if parts.folder is not None and self.learner is not None and self.saved_step != self.steps:
            self.save()
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
        environment = self.parts.evaluation or self.environment
        scenarios = environment.episode_scenarios()
        count = samples or self.config.eval_samples
        return await self._unless_stopped(
            evaluate(
                self.agent,
                environment,
                scenarios,
                reward or self.reward,
                samples=count,
                key=key,
                max_concurrent=self.config.max_concurrent,
                on_episode=self._counter("evaluating", len(scenarios) * count),
                environment_timeout=self.config.environment_timeout,
                reward_timeout=self.config.reward_timeout,
            )
        )

    def save(self) -> None:
        """Write a checkpoint of the state after the last step, and remove the oldest ones."""
        folder, learner = self.parts.folder, self.learner
        if folder is None or learner is None:
            return
        self._phase("saving")
        folder.sync()
        subject = Subject(self.agent, self.environment, self.reward, self.parts.records)
        target = step_folder(folder.checkpoints_dir, self.steps)
        if not target.exists():
            save_run_state(target, subject, learner, self.state_dict())
        self.saved_step = self.steps
        best = self._judge.early.best_step
        protect = [step_folder(folder.checkpoints_dir, best)] if best else []
        prune_checkpoints(folder.checkpoints_dir, self.config.keep_checkpoints, protect=protect)
        self._phase("")

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
            "judge": self._judge.state_dict(),
            "callbacks": {callback.name: callback.state_dict() for callback in self.parts.callbacks},
            "config": self.config.fingerprint_fields(),
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
        self._judge.load_state_dict(state["judge"])
        for callback in self.parts.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])
        self.saved_step = self.steps
        self.publish()

    def publish(self) -> None:
        """Tell the engine that the weights are those after `steps` steps: what it computed before is void."""
        if self._engine is not None:
            self._engine.weights_changed(self.steps)

    def _make_source(self) -> Source:
        data = build_records(self.config) if self.parts.data is None else self.parts.data
        if data is None:
            return Rollouts(self.environment.episode_scenarios(), self.config, self._play)
        return RecordedConversations(data, self.config)

    @property
    def _temperature(self) -> float:
        """Of the log-probs that are trained. What was recorded is to be likely under the model as it is."""
        return self.agent.config.temperature if self._source.data is None else 1.0

    async def _render(self) -> None:
        source = self._source
        if not isinstance(source, RecordedConversations):
            return
        total = len(source.records)

        def count(done: int) -> None:
            self._phase("reading", done, total)
            if self.parts.folder is not None:
                self.parts.folder.heartbeat()

        work = render_records(source.records, self.agent, count)
        source.prepare(await self._unless_stopped(work))

    async def _one_step(self, step: int) -> None:
        begin = time.perf_counter()
        draw = await self._unless_stopped(self._source.groups(step))
        self._source.drawn = draw.drawn
        groups = [*draw.kept, *draw.flat]
        rolled = time.perf_counter()
        measured = StepMetrics()
        if self.learner is not None:
            self._phase("learning")
            measured = self.learner.step(
                draw.kept,
                max_tokens=self.agent.most_tokens(self.environment.max_turns),
                max_new_tokens=self.agent.config.max_new_tokens,
            )
        self.steps = step + 1
        self.publish()
        learned = time.perf_counter()
        self.episodes += self._source.episodes(groups)
        row = self._row(step, groups, measured, rolled - begin, learned - rolled)
        if self._source.data is None:
            self._stated |= {episode.success is not None for group in groups for episode in group.trajectories}
            if self.parts.folder is not None:
                self._note_credit(groups)
                self.parts.folder.log_trajectories(self.steps, groups)
            self.parts.sinks.sample(self.steps, groups)
        if self.steps == 1:
            require_something_to_learn(groups, trains=self.learner is not None)
        await self._complete(row)

    def _note_credit(self, groups: Sequence[TrajectoryGroup]) -> None:
        """Write into the conversations what the update made of them."""
        learner, loaded = self.learner, self.agent.runtime.model
        if learner is None or learner.credit is None or loaded is None:
            return
        spelled = next((group for group in groups if group.teaches), None)
        if not is_spelled(self.steps, self.config.plan.total_steps):
            spelled = None
        learner.credit.note(spelled, lambda token: str(loaded.tokenizer.decode([token])))

    async def _complete(self, row: dict[str, Any]) -> None:
        """What follows the update: evaluation, log, verdict, checkpoint."""
        self._pending = row
        begin = time.perf_counter()
        every = self.config.plan.eval_every_steps
        if every and self.steps % every == 0:
            row = row | await self._evaluation_row()
        row["seconds"] = row["rollout_seconds"] + row["train_seconds"] + time.perf_counter() - begin
        self._pending = None
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

    async def _play(self, scenarios: Sequence[Scenario], key: str) -> list[TrajectoryGroup]:
        player = self.agent.fork("")
        player.training_sampling = True
        return await collect_groups(
            player,
            self.environment,
            scenarios,
            self.reward,
            group_size=self.config.num_generations,
            key=key,
            max_concurrent=self.config.max_concurrent,
            on_episode=self._counter("rolling out", len(scenarios) * self.config.num_generations),
            environment_timeout=self.config.environment_timeout,
            reward_timeout=self.config.reward_timeout,
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; if the run is asked to stop meanwhile, give it up, save and raise `StopRequested`.

        What `work` itself raises is raised too, after saving what was done before it.
        """
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._stop.is_set():
            await asyncio.gather(task, return_exceptions=True)
            if self.steps:
                self.save()
            raise StopRequested
        try:
            return task.result()
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
        if self.parts.folder is not None:
            self.parts.folder.log_metrics(row)
        self.parts.sinks.log(row)
        if self.parts.progress is not None:
            self.parts.progress.step(row)
        for callback in self.parts.callbacks:
            callback.on_step_end(row)

    def _counter(self, name: str, total: int) -> Callable[[MultiTurnTrajectory], None]:
        done = 0
        self._phase(name, 0, total)

        def count(_: MultiTurnTrajectory) -> None:
            nonlocal done
            done += 1
            self._phase(name, done, total)
            if self.parts.folder is not None:
                self.parts.folder.heartbeat()

        return count

    def _phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        if self.parts.progress is not None:
            self.parts.progress.phase(name, done, total)
