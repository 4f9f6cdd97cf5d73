"""Every algorithm on the toy task of `toy_task.py`: the mean reward of each step, and one plot with all curves.

    python benchmarks/algorithms.py                          a table, and algorithms.png
    python benchmarks/algorithms.py --only ppo a2c --plot "" two of them, and no plot

A random two-layer model is rewarded for one token, about 0.02 at first. Where an algorithm needs other settings than
grpo to learn in so few steps, they stand in `SETTINGS`. The plot needs the `plots` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from toy_task import CONVERSATIONS, SCENARIOS, WORD, Reached, Share, Watch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.algorithms import RECIPES
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.training.trainer import RunParts, Trainer

GOAL, MOST_STEPS = 0.9, 120
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"value_learning_rate": 5e-3},
    "a2c": {"value_learning_rate": 5e-3, "entropy_coef": 0.0},
    # A bound for steps of a model that is to change its mind completely in a few of them.
    "trpo": {"max_kl": 0.5, "cg_damping": 1e-3},
}


async def curve(algorithm: str, *, seed: int, noise: bool) -> dict[str, Any]:
    """Train until the goal; the mean share of the token at each step."""
    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    await agent.initialize()
    loaded = agent.runtime.model
    assert loaded is not None
    (token,) = loaded.tokenizer.encode(WORD)
    config = TrainingConfig.from_profile(
        "balanced",
        algorithm=algorithm,
        num_episodes=MOST_STEPS * CONVERSATIONS,
        num_generations=CONVERSATIONS // len(SCENARIOS),
        batch_size=CONVERSATIONS,
        gradient_accumulation_steps=1,
        learning_rate=5e-3,
        warmup_steps=0,
        eval_every=0,
        save_every=0,
        mixed_precision=False,
        seed=seed,
        **SETTINGS.get(algorithm, {}),
    )
    reward = Share(token, random.Random(seed) if noise else None)
    watch = Watch(reward, GOAL)
    begin = time.process_time()
    trainer = Trainer(
        agent, ConversationEnvironment(SCENARIOS, max_turns=2), reward, config, RunParts(callbacks=[watch])
    )
    try:
        await trainer.prepare()
        await trainer.run()
    except Reached:
        pass
    await agent.aclose()
    reached = watch.means[-1] >= GOAL
    return {
        "algorithm": algorithm,
        "steps": len(watch.means) if reached else None,
        "best": round(max(watch.means), 3),
        "cpu_seconds": round(time.process_time() - begin, 1),
        "curve": [round(mean, 4) for mean in watch.means],
    }


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """All curves in one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    styles = ("-", "--", ":", "-.")
    for place, result in enumerate(results):
        axes.plot(
            range(1, len(result["curve"]) + 1),
            result["curve"],
            linestyle=styles[place % len(styles)],
            label=result["algorithm"],
        )
    axes.axhline(GOAL, color="grey", linewidth=0.5)
    axes.set(xlabel="step", ylabel="mean reward of the step", ylim=(0, 1), xscale="log")
    axes.legend(ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", action="store_true", help="rewards by chance: nothing must be learned")
    parser.add_argument("--plot", default="algorithms.png", help="file of the plot; empty: none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for algorithm in options.only:
        result = asyncio.run(curve(algorithm, seed=options.seed, noise=options.noise))
        results.append(result)
        reached = f"{GOAL} after {result['steps']} steps" if result["steps"] else "not reached"
        print(f"{algorithm:10} {reached}, best {result['best']:.3f}, {result['cpu_seconds']} CPU s", flush=True)
    print(json.dumps(results))
    if options.plot:
        plot(results, Path(options.plot))
    if not options.noise and any(result["steps"] is None for result in results):
        sys.exit("some algorithms did not learn the task")


if __name__ == "__main__":
    main()
