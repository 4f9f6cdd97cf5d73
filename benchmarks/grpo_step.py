"""One GRPO step of fixed size, ours and TRL's in turn, on the same machine in the same minutes.

The work is N prompts x G samples, each prompt exactly P tokens, each completion exactly C tokens, one optimizer step on
all of them: full fine-tuning, bf16 compute, no KL. Ours keeps float32 master weights and float32 Adam states; TRL
trains the bf16 weights themselves, as its defaults do for a bf16 model, which is less work and less memory.

    python benchmarks/grpo_step.py                     the three documented sizes, three rounds
    python benchmarks/grpo_step.py --ours 2 8 64 32    one size, ours alone, one JSON object

Each measurement is a process of its own, one step of warm-up left out; the figure is the median over its steps, then
over the rounds. Needs the `trl` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SIZES = [(2, 8, 64, 32), (2, 8, 512, 64), (1, 8, 2048, 64)]
TRL_MICRO_BATCH = {(1, 8, 2048, 64): 2}
"""Sequences per pass that TRL needs to fit; 0 is all at once."""


async def ours(size: tuple[int, int, int, int], steps: int, threads: int) -> dict[str, object]:
    """Measure our step."""
    import torch

    from stateset_agents.config.training import TrainingConfig
    from stateset_agents.core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
    from stateset_agents.engines.base import GenerationRequest, SamplingParams
    from stateset_agents.engines.local import LocalEngine
    from stateset_agents.models import EMBEDDED, load_model
    from stateset_agents.training.learner import Learner

    torch.set_num_threads(threads)
    prompts, group, prompt_tokens, completion_tokens = size
    loaded = load_model(EMBEDDED)
    config = TrainingConfig.from_profile(
        "balanced", mixed_precision=True, num_generations=group, batch_size=prompts * group, learning_rate=1e-5
    )
    learner = Learner(loaded, config, total_steps=steps + 1, temperature=1.0)
    engine = LocalEngine(loaded)
    rng = random.Random(0)
    words = loaded.tokenizer(" the order shipment arrived late please help refund account").input_ids
    params = SamplingParams(temperature=1.0, max_new_tokens=completion_tokens)
    walls, cpus, rollouts = [], [], []
    for step in range(steps + 1):
        texts = [tuple(rng.choice(words) for _ in range(prompt_tokens)) for _ in range(prompts)]
        wall, cpu = time.perf_counter(), time.process_time()
        requests = [
            GenerationRequest(f"{step}/{p}/{g}", text, params) for p, text in enumerate(texts) for g in range(group)
        ]
        replies = await asyncio.gather(*map(engine.generate, requests))
        rollouts.append(time.perf_counter() - wall)
        groups = []
        for p, text in enumerate(texts):
            trajectories = []
            for g in range(group):
                row = TokenRow()
                row.append_context(text)
                reply = replies[p * group + g]
                row.append_sampled(reply.ids, reply.logprobs, reply.version)
                trajectories.append(MultiTurnTrajectory(str(p), rows=[row], reward=float(g)))
            groups.append(TrajectoryGroup(str(p), trajectories))
        learner.step(groups, max_tokens=completion_tokens)
        engine.weights_changed(step + 1)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    await engine.aclose()
    return {
        "who": "ours",
        "step_wall_s": round(statistics.median(walls[1:]), 3),
        "step_cpu_s": round(statistics.median(cpus[1:]), 3),
        "generate_wall_s": round(statistics.median(rollouts[1:]), 3),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a process of its own and read the JSON object it prints last."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare(rounds: int, steps: int, threads: int) -> None:
    """Measure every size in turn and print a table."""
    from stateset_agents.models.embedded import embedded_folder

    here, model = Path(__file__).resolve().parent, embedded_folder()
    results = []
    for size in SIZES:
        pairs = []
        for _ in range(rounds):
            numbers = list(map(str, size))
            one = measure([__file__, "--ours", *numbers, "--steps", str(steps), "--threads", str(threads)])
            names = ("--prompts", "--group", "--prompt-tokens", "--completion-tokens")
            flags = [text for pair in zip(names, numbers, strict=True) for text in pair]
            micro = ["--micro-batch", str(TRL_MICRO_BATCH.get(size, 0))]
            common = ["--model", str(model), "--steps", str(steps + 1), "--threads", str(threads)]
            two = measure([str(here / "trl_baseline.py"), *common, *flags, *micro])
            pairs.append((one, two))
            print(json.dumps({"size": size, "ours": one, "trl": two}), file=sys.stderr)
        row = {"size": size}
        for index, who in enumerate(("ours", "trl")):
            for key in ("step_wall_s", "step_cpu_s", "generate_wall_s", "peak_rss_mb"):
                row[f"{who}_{key}"] = statistics.median(pair[index][key] for pair in pairs)
        row["wall_ratio"] = round(statistics.median(b["step_wall_s"] / a["step_wall_s"] for a, b in pairs), 2)
        row["cpu_ratio"] = round(statistics.median(b["step_cpu_s"] / a["step_cpu_s"] for a, b in pairs), 2)
        results.append(row)
        print(
            f"{size}: ours {row['ours_step_wall_s']:.1f} s, TRL {row['trl_step_wall_s']:.1f} s, "
            f"{row['wall_ratio']:.1f}x (CPU time {row['cpu_ratio']:.1f}x); peak memory "
            f"{row['ours_peak_rss_mb']:.0f} MB, TRL {row['trl_peak_rss_mb']:.0f} MB"
        )
    print(json.dumps(results))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=4, type=int, metavar=("N", "G", "P", "C"), help="one size, ours alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(asyncio.run(ours(tuple(options.ours), options.steps, options.threads))))
    else:
        compare(options.rounds, options.steps, options.threads)


if __name__ == "__main__":
    main()
