"""Plays the conversations of a round when TRL asks for completions.

Invariant: TRL trains in a thread of its own and waits there; conversations are held in the event loop that called for
the training, with the agent's engine and the weights of that moment. The weights do not move meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any, TypeVar

from ...agents.multi_turn import MultiTurnAgent
from ...core.environment import Environment
from ...core.reward import RewardFunction
from ...core.scenario import Scenario
from ...core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ...engines.local import LocalEngine
from ...rollouts import collect_groups
from ..stopping import require_something_to_learn
from .config import TRLGRPOConfig
from .reporter import Reporter
from .rollout import TRLBatch

AgentT = TypeVar("AgentT", bound=MultiTurnAgent)


class Player:
    """TRL's `rollout_func`.

    Args:
        agent: that speaks; see `speaking`.
        environment: that answers.
        reward: that scores.
        scenarios: by the prompt that stands for each.
        config: of the run.
        engine: of the agent; told that the weights changed.
        reporter: told of each round.
        loop: in which conversations are held.
    """

    def __init__(
        self,
        agent: MultiTurnAgent,
        environment: Environment,
        reward: RewardFunction,
        scenarios: Sequence[Scenario],
        config: TRLGRPOConfig,
        engine: LocalEngine,
        reporter: Reporter,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._agent, self._environment, self._reward = agent, environment, reward
        self._scenarios = {scenario.id: scenario for scenario in scenarios}
        self._config, self._engine, self._reporter, self._loop = config, engine, reporter, loop
        self._first_version = engine.version
        self._rounds = 0
        self._under_way: Future[list[TrajectoryGroup]] | None = None
        self._given_up = False

    def give_up(self) -> None:
        """End the conversations that are under way, and begin no others; TRL's thread gets a `CancelledError`."""
        self._given_up = True
        if self._under_way is not None:
            self._under_way.cancel()

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """Hold one conversation for each prompt.

        Args:
            prompts: ids of scenarios, each as often in a row as its group has conversations.
            trainer: TRL's; its state knows the steps that are done.

        Returns:
            One row for each prompt, in their order.

        Raises:
            ValueError: the prompts are not whole groups.
            TrainingStopped: nothing in the first round can be learned from.
            StatesetError: what stops a rollout.
        """
        size = self._config.num_generations
        groups = [prompts[at : at + size] for at in range(0, len(prompts), size)]
        if any(len(group) != size or len(set(group)) != 1 for group in groups):
            raise ValueError(f"TRL asked for {len(prompts)} completions that are not whole groups of {size}")
        if self._given_up:
            raise CancelledError
        loaded = self._agent.runtime.model
        assert loaded is not None  # noqa: S101 - TRL has it
        model = loaded.model
        done = int(trainer.state.global_step)
        begin = time.perf_counter()
        training = model.training
        model.eval()
        try:
            self._engine.weights_changed(self._first_version + done)
            work = self._collect([self._scenarios[group[0]] for group in groups])
            self._under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
            played = self._under_way.result()
        finally:
            model.train(training)
        batch = TRLBatch.of(played, filler=int(trainer.processing_class.eos_token_id))
        self._reporter.round(
            int(trainer.state.global_step) + 1, played, batch.dropped_rows, time.perf_counter() - begin
        )
        if self._rounds == 1:
            require_something_to_learn(played, trains=True)
        return batch.to_dict()

    async def _collect(self, scenarios: list[Scenario]) -> list[TrajectoryGroup]:
        key = f"{self._config.seed}/{self._rounds}"
        self._rounds += 1
        done, total = 0, len(scenarios) * self._config.num_generations

        def ended(_: MultiTurnTrajectory) -> None:
            nonlocal done
            done += 1
            self._reporter.episode_ended(done, total)

        return await collect_groups(
            self._agent,
            self._environment,
            scenarios,
            self._reward,
            group_size=self._config.num_generations,
            key=key,
            on_episode=ended,
            environment_timeout=self._config.environment_timeout,
            reward_timeout=self._config.reward_timeout,
        )


def speaking(agent: AgentT, config: TRLGRPOConfig) -> AgentT:
    """A twin of the agent that speaks in training: sampled at temperature only, as long as the config allows.

    With `max_prompt_length` its context is that and one reply, so that no conversation is longer.
    """
    twin = agent.fork("")
    twin.training_sampling = True
    twin.config = replace(agent.config, **config.sampling)
    if config.max_prompt_length is not None:
        runtime = agent.runtime
        bound = min(runtime.max_context, config.max_prompt_length + twin.config.max_new_tokens)
        twin.load_from(None)
        twin.runtime = replace(runtime, max_context=bound)
    return twin
