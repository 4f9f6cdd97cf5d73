"""How well a small model learns to use tools: held-out customers of the web shop, stage by stage, over three seeds.

A customer is helped if every call was made with the right order, every fact was told, and nothing was refunded that
nobody asked for. Stages: the model as it comes, with one example in its prompt, after imitating 24 recorded
conversations, and after learning from its own.

    python benchmarks/tool_use.py                  seeds 0 1 2, one after another
    python benchmarks/tool_use.py --one 1          one seed, and its file
    python benchmarks/tool_use.py --read           the table of what was measured
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stateset_agents.core.errors import RunFolderError
from stateset_agents.tracking.run_folder import RunFolder

LESSON = {
    "epochs": 2,
    "imitation_rate": 5e-5,
    "episodes": 320,
    "batches": 2,
    "rate": 2e-5,
    "samples": 4,
    "tasks": None,
}


async def run_one(folder: Path, seed: int) -> dict[str, Any]:
    """All stages of one seed."""
    from stateset_agents.core.environment import load_tasks
    from stateset_agents.core.shipped import shipped
    from stateset_agents.evaluation import EvaluationResult, evaluate
    from stateset_agents.examples.customer_service_agent import (
        HELD_OUT,
        CustomerServiceAgent,
        CustomerServiceEnvironment,
        Lesson,
        create_customer_service_reward,
        learn,
        told,
    )

    begun = time.monotonic()
    stages: dict[str, Any] = {}

    def measured(name: str, result: EvaluationResult) -> None:
        print(told(name, result), flush=True)
        episodes = [*result.episodes, *(failed for group in result.groups for failed in group.failures)]
        calls = Counter(
            turn.tool_result.error.value if turn.tool_result.error else "ok"
            for episode in episodes
            for turn in episode.turns
            if turn.tool_result is not None
        )
        stages[name] = {
            "seconds": round(time.monotonic() - begun),
            "success": result.to_dict()["success"],
            "reward": result.to_dict()["reward"],
            "outcomes": Counter(episode.outcome.value for episode in episodes),
            "calls": calls,
        }

    lesson = Lesson(**LESSON)
    held_out = load_tasks(shipped(HELD_OUT))
    shown = CustomerServiceAgent(example=True)
    reward = create_customer_service_reward()
    example = await evaluate(shown, CustomerServiceEnvironment(), held_out, reward, samples=1)
    measured("one example, 1 sample", example)
    await shown.aclose()
    agent = CustomerServiceAgent()
    await learn(agent, lesson, seed=seed, folder=folder / f"seed-{seed}", on_stage=measured, quiet=False)
    return {"seed": seed, "minutes": round((time.monotonic() - begun) / 60, 1), "lesson": LESSON, "stages": stages}


def table(folder: Path) -> str:
    """Markdown table of what was measured."""
    lines = ["| seed | stage | customers helped | reward | calls that worked | outcomes | minutes since the start |"]
    lines.append("|---|---|---|---|---|---|---|")
    for file in sorted(folder.glob("seed-*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        for name, stage in data["stages"].items():
            success, reward = stage["success"], stage["reward"]
            calls = stage["calls"]
            cells = [
                str(data["seed"]),
                name,
                f"{success['mean']:.1%} ({success['low']:.0%} to {success['high']:.0%})",
                f"{reward['mean']:.2f}",
                f"{calls.get('ok', 0)} of {sum(calls.values())}",
                ", ".join(f"{count} {kind}" for kind, count in sorted(stage["outcomes"].items())),
                f"{stage['seconds'] / 60:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the seeds, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one", type=int, help="run this seed in this process")
    parser.add_argument("--read", action="store_true", help="print the table of what is there")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/tool_use"))
    options = parser.parse_args()
    folder: Path = options.output_dir
    seeds = options.seeds if options.one is None else [options.one]
    missing = [seed for seed in seeds if not (folder / f"seed-{seed}.json").exists()]
    if not options.read:
        try:
            for seed in missing:
                RunFolder.require_free(folder / f"seed-{seed}", go_on="choose another --output-dir, or move it away")
        except RunFolderError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        folder.mkdir(parents=True, exist_ok=True)
    if options.one is not None:
        result = asyncio.run(run_one(folder, options.one))
        (folder / f"seed-{options.one}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        return 0
    if not options.read:
        for seed in missing:
            command = [sys.executable, __file__, "--one", str(seed), "--output-dir", str(folder)]
            subprocess.run(command, check=True)
    print(table(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
