"""How long learning takes where nothing else does: steps and CPU seconds to a mean reward of 0.95.

A random two-layer model talks with a scripted user for two turns; the reward is the share of one token in what it says,
about 0.02 at first. Everything is real (environment, engine, learner, optimizer) and small, so the figure shows the
loop's own cost and whether it still learns. With rewards by chance it must not.

    python benchmarks/toy_task.py              three seeds and the control: a sentence, and one JSON object last
    python benchmarks/toy_task.py --lora       the same with adapters
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.engines.sampling import uniform
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.parts import RunParts
from stateset_agents.training.trainer import Trainer

WORD, GOAL, MOST_STEPS = " refund", 0.95, 30
CONVERSATIONS = 32
"""Of a step: two scenarios, sixteen times each."""
SCENARIOS = [
    {"id": "greeting", "user_responses": ["Hello!", "And now?"]},
    {"id": "question", "user_responses": ["Is it free?", "How so?"]},
]


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        seed: of the run.
        steps: optimizer steps until the mean share of a step's conversations reached the goal; None if it never did.
        cpu_seconds: CPU time until then, loading the model left out.
        best: highest mean share of a step.
        curve: mean share of each step.
        rows: everything that the trainer measured at each step.
    """

    seed: int
    steps: int | None
    cpu_seconds: float
    best: float
    curve: list[float] = field(repr=False)
    rows: list[Mapping[str, Any]] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """Without what each step measured."""
        return {"seed": self.seed, "steps": self.steps, "cpu_seconds": self.cpu_seconds, "best": self.best}


class Share(RewardFunction):
    """The share of one token among all that the agent said, or a random number in its place.

    Conversations end in no fixed order, so a random number is that of the conversation and of how often it was had
    before: the same in every run, and nothing that could be learned.
    """

    maximum = 1.0

    def __init__(self, token: int, noise: int | None) -> None:
        super().__init__()
        self.token, self.noise = token, noise
        self.shares: list[float] = []
        self.had: Counter[str] = Counter()

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        """See `RewardFunction.compute_reward`."""
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        self.shares.append(ids.count(self.token) / len(ids))
        if self.noise is None:
            return RewardResult(self.shares[-1])
        key = f"{self.noise}/{ids}/{[turn.content for turn in turns]}"
        self.had[key] += 1
        return RewardResult(uniform(key, self.had[key]))


class Watch(Callback):
    """Notes what each step measured and the CPU time at its end, and ends the run at the goal.

    Where nothing is said, because recorded answers are read, the mean is their likelihood (geometric, over tokens).
    """

    def __init__(self, reward: Share, goal: float) -> None:
        self.reward, self.goal = reward, goal
        self.begin = time.process_time()
        self.means: list[float] = []
        self.cpu: list[float] = []
        self.rows: list[Mapping[str, Any]] = []
        self.seen = 0

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        """See `Callback.on_step_end`."""
        # All of the step's: dynamic sampling may have drawn more than CONVERSATIONS.
        said = self.reward.shares[self.seen :]
        self.means.append(statistics.mean(said) if said else math.exp(-metrics["loss"]))
        self.seen = len(self.reward.shares)
        self.cpu.append(time.process_time() - self.begin)
        self.rows.append(metrics)
        if self.means[-1] >= self.goal:
            raise Reached


class Reached(Exception):
    """The goal is reached."""


async def run(
    seed: int, *, noise: bool = False, goal: float = GOAL, most_steps: int = MOST_STEPS, **settings: Any
) -> Result:
    """Train once.

    Args:
        seed: of the run.
        noise: rewards by chance.
        goal: mean share at which the run ends.
        most_steps: after which it ends as well.
        settings: hyperparameters that replace those of the task.
    """
    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    await agent.initialize()
    loaded = agent.runtime.model
    assert loaded is not None
    (token,) = loaded.tokenizer.encode(WORD)
    config = task_config(most_steps, seed=seed, **settings)
    reward = Share(token, seed if noise else None)
    watch = Watch(reward, goal)
    environment = ConversationEnvironment(SCENARIOS, max_turns=2)
    trainer = Trainer(agent, environment, reward, config, RunParts(callbacks=[watch]))
    try:
        await trainer.prepare()
        await trainer.run()
    except Reached:
        pass
    await agent.aclose()
    steps = len(watch.means) if watch.means[-1] >= goal else None
    return Result(seed, steps, round(watch.cpu[-1], 2), round(max(watch.means), 3), watch.means, watch.rows)


def task_config(most_steps: int, **settings: Any) -> TrainingConfig:
    """The task's hyperparameters: an update from `CONVERSATIONS` a step, at a rate for a model that knows nothing."""
    values = {
        "num_episodes": most_steps * CONVERSATIONS,
        **({} if "data_file" in settings else {"num_generations": CONVERSATIONS // len(SCENARIOS)}),
        "batch_size": CONVERSATIONS,
        "gradient_accumulation_steps": 1,
        "learning_rate": 5e-3,
        "warmup_steps": 0,
        "eval_every": 0,
        "save_every": 0,
        "mixed_precision": False,
    }
    return TrainingConfig.from_profile("balanced", **(values | settings))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lora", action="store_true", help="train adapters instead of all weights")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings: dict[str, Any] = {"lora": {"r": 8, "alpha": 16}, "learning_rate": 2e-2} if options.lora else {}
    results = [asyncio.run(run(seed, **settings)) for seed in range(options.seeds)]
    control = asyncio.run(run(0, noise=True, **settings))
    reached = [result for result in results if result.steps is not None]
    steps = statistics.median(result.steps or 0 for result in reached) if reached else None
    cpu = statistics.median(result.cpu_seconds for result in reached) if reached else None
    print(
        f"A mean reward of {GOAL} after {steps} steps and {cpu} CPU seconds (median of {len(reached)} of "
        f"{options.seeds} seeds that reached it); rewards by chance got to {control.best} in {MOST_STEPS} steps."
        if reached
        else f"No seed reached a mean reward of {GOAL} in {MOST_STEPS} steps."
    )
    summary = {"steps": steps, "cpu_seconds": cpu, "reached": len(reached), "seeds": options.seeds}
    print(json.dumps({**summary, "runs": [r.summary() for r in results], "control": control.summary()}))


if __name__ == "__main__":
    main()
