"""The loop: roll out, score, learn, publish new weights; evaluate and save in between.

Invariant: a step is a function of the weights, the configuration and the step's number. Conversations of step n are
keyed by seed and n, scenarios are a function of seed and position, and the engine's replies depend on nothing else.
Between two steps everything that the next one needs is in the learner, the counters and the callbacks' states.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import prune_checkpoints
from ..checkpoints.locate import step_folder
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.errors import ConfigError, ModelError, TrainingStopped
from ..core.reward import RewardFunction
from ..core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..engines.local import LocalEngine
from ..evaluation import EvaluationResult, SuccessCriterion, evaluate, group_metrics
from ..models import attach_lora
from ..rollouts import collect_groups
from ..tracking.progress import Progress
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import Sinks
from .callbacks import Callback
from .learner import Learner, StepMetrics
from .order import ScenarioOrder
from .saving import Subject, save_run_state
from .stopping import EarlyStopping, FlatSteps

log = logging.getLogger(__name__)

T = TypeVar("T")

SOLVED = 0.95
"""Share of the attainable reward from which on groups without differences are what success looks like."""


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
    """

    folder: RunFolder | None = None
    evaluation: Environment | None = None
    callbacks: Sequence[Callback] = ()
    progress: Progress | None = None
    sinks: Sinks = field(default_factory=Sinks)
    records: Mapping[str, Any] = field(default_factory=dict)


class Trainer:
    """One run.

    Args:
        agent: trained in place.
        environment: what it is trained in.
        reward: what it is trained for.
        config: every hyperparameter.
        parts: folder, watchers and so on.

    Raises:
        ConfigError: two callbacks have the same name.
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
        self.episodes = 0
        self.learner: Learner | None = None
        self.stop_reason: str | None = None
        self.success_criterion = "nothing states a criterion"
        names = [callback.name for callback in self.parts.callbacks]
        if len(set(names)) != len(names):
            raise ConfigError(f"two callbacks have the same name: {', '.join(names)}; give one another `name`")
        self._criterion = SuccessCriterion(reward.attainable)
        self._order = ScenarioOrder(environment.episode_scenarios(), config.seed)
        self._early = EarlyStopping(config.plan.patience_evaluations if config.early_stopping else None)
        self._flat = FlatSteps()
        self._saved_step = 0
        self._stop = asyncio.Event()

    def request_stop(self) -> None:
        """Stop as soon as nothing is lost by it: a rollout is given up, an update is finished."""
        self._stop.set()

    @property
    def steps(self) -> int:
        """Steps that are done."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    async def prepare(self) -> None:
        """Load the model, attach adapters, and give the learner its precision. Needed before `run`; once is enough.

        Raises:
            ModelError: the model cannot be loaded, or is not one that this process can train.
        """
        await self.agent.initialize()
        loaded = self.agent.runtime.model
        if loaded is None or self.learner is not None:
            return
        if not isinstance(self.agent.runtime.engine, LocalEngine):
            raise ModelError("only a model in this process can be trained: the agent's engine is a remote one")
        if self.config.lora is not None:
            settings = self.config.lora
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
            temperature=self.agent.config.temperature,
        )
        self.agent.runtime.engine.weights_changed(0)
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
        for step in range(start, plan.total_steps):
            await self._one_step(step)
            if self.stop_reason:
                break
        if parts.folder is not None and self.learner is not None and self._saved_step != self.steps:
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
        self._saved_step = self.steps
        protect = [step_folder(folder.checkpoints_dir, self._early.best_step)] if self._early.best_step else []
        prune_checkpoints(folder.checkpoints_dir, self.config.keep_checkpoints, protect=protect)

    def state_dict(self) -> dict[str, Any]:
        """Counters and watchers, as JSON; weights and optimizer are the learner's."""
        return {
            "step": self.steps,
            "episodes": self.episodes,
            "early_stopping": self._early.state_dict(),
            "flat_steps": self._flat.count,
            "callbacks": {callback.name: callback.state_dict() for callback in self.parts.callbacks},
            "sinks": self.parts.sinks.state_dict(),
            "config": self.config.fingerprint_fields(),
        }

    def load_state_dict(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Inverse of `state_dict`.

        Args:
            state: from a checkpoint.
            rows: the metrics up to its step.

        Raises:
            ConfigError: the settings that decide what is learned differ from the saved ones.
        """
        now, then = self.config.fingerprint_fields(), state["config"]
        changed = [f"{key}: {then.get(key)} then, {now[key]} now" for key in now if now[key] != then.get(key)]
        changed = [text for text in changed if not text.startswith("num_episodes:")]
        if changed:
            raise ConfigError(
                "a resumed run must have the settings it began with; these differ:",
                *(f"  {text}" for text in changed),
                "  undo the change, or start a new run from the checkpoint with --resume-from",
            )
        self.episodes = int(state["episodes"])
        self._early.load_state_dict(state["early_stopping"])
        self._flat.count = int(state["flat_steps"])
        for callback in self.parts.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])
        self.parts.sinks.load_state_dict(state["sinks"])
        self.rows = [dict(row) for row in rows]
        self._saved_step = self.steps
        if self.learner is not None and isinstance(self.agent.runtime.engine, LocalEngine):
            self.agent.runtime.engine.weights_changed(self.steps)

    async def _one_step(self, step: int) -> None:
        begin = time.perf_counter()
        groups = await self._roll_out(step)
        rolled = time.perf_counter()
        measured = StepMetrics()
        if self.learner is not None:
            self._phase("learning")
            measured = self.learner.step(
                groups, max_tokens=self.agent.config.max_new_tokens * self.environment.max_turns
            )
            if isinstance(self.agent.runtime.engine, LocalEngine):
                self.agent.runtime.engine.weights_changed(step + 1)
        learned = time.perf_counter()
        self.episodes += sum(len(group.trajectories) + len(group.failures) for group in groups)
        row = self._row(step, groups, measured, rolled - begin, learned - rolled)
        every = self.config.plan.eval_every_steps
        if every and (step + 1) % every == 0:
            row |= await self._evaluation_row(step)
        row["seconds"] = time.perf_counter() - begin
        self._record(row, groups)
        self._judge(row, measured)
        every = self.config.plan.save_every_steps
        if every and (step + 1) % every == 0:
            self.save()

    async def _roll_out(self, step: int) -> list[TrajectoryGroup]:
        per_step = self.config.plan.groups_per_step
        player = self.agent.fork("")
        player.training_sampling = True
        return await self._unless_stopped(
            collect_groups(
                player,
                self.environment,
                self._order.at(step * per_step, per_step),
                self.reward,
                group_size=self.config.num_generations,
                key=f"{self.config.seed}/{step}",
                max_concurrent=self.config.max_concurrent,
                on_episode=self._counter("rolling out", self.config.plan.conversations_per_step),
            )
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; if the run is asked to stop meanwhile, give it up, save and raise `StopRequested`."""
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
        return task.result()

    def _row(
        self, step: int, groups: Sequence[TrajectoryGroup], measured: StepMetrics, rollout: float, train: float
    ) -> dict[str, Any]:
        episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
        sampled = sum(episode.trained_tokens for episode in episodes)
        learned = measured.to_dict() if self.learner is not None else {}
        return {
            "step": step + 1,
            "episodes": self.episodes,
            **learned,
            **group_metrics(groups, self._criterion),
            "sampled_tokens": sampled,
            "tokens_per_second": sampled / (rollout + train),
            "rollout_seconds": rollout,
            "train_seconds": train,
        }

    async def _evaluation_row(self, step: int) -> dict[str, Any]:
        result = await self.evaluate()
        for callback in self.parts.callbacks:
            callback.on_evaluation(step + 1, result)
        if self.parts.folder is not None:
            self.parts.folder.log_trajectories(step + 1, result.groups, phase="eval")
        return {f"eval_{name}": value for name, value in result.metrics().items()}

    def _record(self, row: dict[str, Any], groups: Sequence[TrajectoryGroup]) -> None:
        self.rows.append(row)
        self.success_criterion = self._criterion.text(t for group in groups for t in group.trajectories)
        if self.parts.folder is not None:
            self.parts.folder.log_trajectories(row["step"], groups)
            self.parts.folder.log_metrics(row)
        self.parts.sinks.log(row)
        if self.parts.progress is not None:
            self.parts.progress.step(row)
        for callback in self.parts.callbacks:
            callback.on_step_end(row)

    def _judge(self, row: Mapping[str, Any], measured: StepMetrics) -> None:
        """Stop early with a reason, or stop a run that learns nothing."""
        score = row.get("eval_reward_mean")
        if score is not None:
            self._early.update(row["step"], score)
            if self._early.should_stop:
                self.stop_reason = (
                    f"stopped early: {self._early.without_improvement} evaluations without improvement; "
                    f"best {self._early.best:.3f} at step {self._early.best_step}"
                )
        if self.learner is None:
            return
        self._flat.update(measured.updated)
        if self._flat.should_warn:
            log.warning(
                "%d steps in a row had no group with different rewards: nothing was learned from them", self._flat.count
            )
        if self._flat.should_stop:
            reward = row.get("reward_mean")
            if reward is not None and reward >= SOLVED * self.reward.attainable:
                self.stop_reason = "stopped early: every conversation gets (nearly) the attainable reward"
                return
            self.save()
            raise TrainingStopped(
                f"{self._flat.count} steps in a row had nothing to learn from: all conversations of each group got the "
                f"same reward (mean {'none scored' if reward is None else f'{reward:.3f}'}).\n"
                "  raise the temperature or num_generations, refine the reward, or begin with easier scenarios"
            )

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
