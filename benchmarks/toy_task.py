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
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.trainer import RunParts, Trainer

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
    """

    seed: int
    steps: int | None
    cpu_seconds: float
    best: float


class Share(RewardFunction):
    """The share of one token among all that the agent said, or a random number in its place."""

    maximum = 1.0

    def __init__(self, token: int, noise: random.Random | None) -> None:
        super().__init__()
        self.token, self.noise = token, noise
        self.shares: list[float] = []

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        """See `RewardFunction.compute_reward`."""
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        self.shares.append(ids.count(self.token) / len(ids))
        return RewardResult(self.shares[-1] if self.noise is None else self.noise.random())


class Watch(Callback):
    """Notes the CPU time at the end of each step, and ends the run at the goal."""

    def __init__(self, reward: Share, goal: float = GOAL) -> None:
        self.reward, self.goal = reward, goal
        self.begin = time.process_time()
        self.means: list[float] = []
        self.cpu: list[float] = []

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        """See `Callback.on_step_end`."""
        self.means.append(statistics.mean(self.reward.shares[-CONVERSATIONS:]))
        self.cpu.append(time.process_time() - self.begin)
        if self.means[-1] >= self.goal:
            raise Reached


class Reached(Exception):
    """The goal is reached."""


async def run(seed: int, *, lora: bool, noise: bool) -> Result:
    """Train once."""
    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    await agent.initialize()
    loaded = agent.runtime.model
    assert loaded is not None
    (token,) = loaded.tokenizer.encode(WORD)
    config = TrainingConfig.from_profile(
        "balanced",
        num_episodes=MOST_STEPS * CONVERSATIONS,
        num_generations=CONVERSATIONS // len(SCENARIOS),
        batch_size=CONVERSATIONS,
        gradient_accumulation_steps=1,
        learning_rate=2e-2 if lora else 5e-3,
        lora={"r": 8, "alpha": 16} if lora else None,
        warmup_steps=0,
        eval_every=0,
        save_every=0,
        mixed_precision=False,
        seed=seed,
    )
    reward = Share(token, random.Random(seed) if noise else None)
    watch = Watch(reward)
    environment = ConversationEnvironment(SCENARIOS, max_turns=2)
    trainer = Trainer(agent, environment, reward, config, RunParts(callbacks=[watch]))
    try:
        await trainer.prepare()
        await trainer.run()
    except Reached:
        pass
    await agent.aclose()
    steps = len(watch.means) if watch.means[-1] >= GOAL else None
    return Result(seed, steps, round(watch.cpu[-1], 2), round(max(watch.means), 3))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lora", action="store_true", help="train adapters instead of all weights")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [asyncio.run(run(seed, lora=options.lora, noise=False)) for seed in range(options.seeds)]
    control = asyncio.run(run(0, lora=options.lora, noise=True))
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
    print(json.dumps({**summary, "runs": [asdict(r) for r in results], "control": asdict(control)}))


if __name__ == "__main__":
    main()
