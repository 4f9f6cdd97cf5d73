"""The conversations that a run plays: groups to learn from, and evaluations.

Invariant: what is played depends on the key, the weights and the settings; counting it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..agents.multi_turn import MultiTurnAgent
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.reward import RewardFunction
from ..core.scenario import Scenario
from ..core.trajectory import TrajectoryGroup
from ..evaluation import EvaluationResult, evaluate
from ..rollouts import collect_groups
from .parts import RunParts


class Player:
    """Plays with the agent as it is.

    Args:
        agent: forked for each conversation.
        environment: what the agent is trained in.
        reward: what it is trained for.
        config: how many at once, with what limits of time.
        parts: what shows that it goes on, and where evaluations are held.
    """

    def __init__(
        self,
        agent: MultiTurnAgent,
        environment: Environment,
        reward: RewardFunction,
        config: TrainingConfig,
        parts: RunParts,
    ) -> None:
        self._agent = agent
        self._environment = environment
        self._reward = reward
        self._config = config
        self._temperature: float | None = None
        self._parts = parts

    def take(self, config: TrainingConfig, temperature: float) -> None:
        """Play for training with other settings; evaluations stay at the agent's own temperature."""
        self._config, self._temperature = config, temperature

    async def play(self, scenarios: Sequence[Scenario], key: str) -> list[TrajectoryGroup]:
        """A group for each scenario, sampled as training needs it; see `sources.Play`."""
        player = self._agent.fork("")
        player.training_sampling = True
        if self._temperature is not None:
            player.config = replace(player.config, temperature=self._temperature)
        return await collect_groups(
            player,
            self._environment,
            scenarios,
            self._reward,
            group_size=self._config.num_generations,
            key=key,
            max_concurrent=self._config.max_concurrent,
            on_episode=self._parts.counter("rolling out", len(scenarios) * self._config.num_generations),
            environment_timeout=self._config.environment_timeout,
            reward_timeout=self._config.reward_timeout,
        )

    async def evaluate(self, samples: int | None, key: str, reward: RewardFunction | None) -> EvaluationResult:
        """See `Trainer.evaluate`."""
        environment = self._parts.evaluation or self._environment
        scenarios = environment.episode_scenarios()
        count = samples or self._config.eval_samples
        return await evaluate(
            self._agent,
            environment,
            scenarios,
            reward or self._reward,
            samples=count,
            key=key,
            max_concurrent=self._config.max_concurrent,
            on_episode=self._parts.counter("evaluating", len(scenarios) * count),
            environment_timeout=self._config.environment_timeout,
            reward_timeout=self._config.reward_timeout,
        )
