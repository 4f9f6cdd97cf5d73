"""Every algorithm on the toy task of `toy_task.py`: how soon each learns it, and one plot with all curves.

A random two-layer model is rewarded for one token, which is about one in fifty of what it says at first. All algorithms
have the hyperparameters of the toy task; where one needs others to learn in so few steps, they stand in `SETTINGS`.
With rewards by chance none may learn it. A preference algorithm must also agree with the pairs of fresh conversations,
and one that imitates must find what it imitates likely. What only reads (`sft`) is measured by the likelihood of the
answers that it reads, which repeat the token; its control reads words by chance.

    python benchmarks/algorithms.py                          a markdown table, algorithms.json and algorithms.svg
    python benchmarks/algorithms.py --only ppo a2c --seeds 1 two of them, one seed

The plot needs the `plots` extra. It ends with an error if an algorithm did not learn, or if chance taught one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from toy_task import CONVERSATIONS, SCENARIOS, WORD, run

from stateset_agents.config.algorithms import RECIPES

GOAL = 0.9
WORDS = ["refund", "order", "please", "hello", "the", "of", "price", "and", "when", "late", "no", "yes", "is", "it"]
LAST = 5
"""Steps at the end of a run that a second measure is averaged over: a step has two pairs, or two imitated rows."""


@dataclass(frozen=True)
class Setting:
    """What one algorithm needs.

    Attributes:
        changes: hyperparameters that replace those of the toy task.
        most_steps: after which a run has failed.
        why: of the changes, for the table.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    most_steps: int = 30
    why: str = ""


SETTINGS: dict[str, Setting] = {
    "grpo": Setting(),
    "dr_grpo": Setting(),
    "bnpo": Setting(),
    "dapo": Setting(),
    "gspo": Setting(),
    "cispo": Setting(),
    "sapo": Setting(),
    "luspo": Setting(),
    "vespo": Setting(),
    "rloo": Setting(),
    "reinforce": Setting(),
    "ppo": Setting(
        {"learning_rate": 2e-3},
        80,
        "of its two updates a step the second sees what the clip of 0.2 left: a token grows by about a fifth a step",
    ),
    "a2c": Setting(),
    "trpo": Setting(
        {"max_kl": 0.5, "cg_iterations": 2},
        60,
        "more iterations fit the noise of 32 conversations and spend the bound on it",
    ),
    "sft": Setting(why="likelihood in the place of the reward"),
    "dpo": Setting(),
    "rft": Setting(),
}
SECOND = {"preference": "preference accuracy", "likelihood": "mean log-prob of what is imitated"}
"""What else is measured, by kind of algorithm."""


def second_measure(algorithm: str, rows: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Of each step that had an update, taken before it; None for algorithms whose only measure is the reward.

    Preference accuracy is the share of the step's pairs that the policy, against the reference, agrees with. The loss
    of an algorithm that imitates is the mean log-prob of the imitated tokens, negative.
    """
    kind = RECIPES[algorithm].kind
    if kind == "preference":
        return [row["preference_accuracy"] for row in rows if row["updated"]]
    if kind == "likelihood":
        return [-row["loss"] for row in rows if row["updated"]]
    return None


def write_answers(folder: Path, seed: int, *, noise: bool) -> str:
    """A file of recorded conversations for the toy task: each answer is the token, or words by chance, eight times."""
    chance = random.Random(seed)
    lines = []
    for place in range(10 * CONVERSATIONS):
        messages = []
        for question in SCENARIOS[place % len(SCENARIOS)]["user_responses"]:
            words = chance.choices(WORDS, k=8) if noise else [WORD.strip()] * 8
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": " ".join(words)}]
        lines.append(json.dumps({"messages": messages}))
    path = folder / "answers.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


async def train(algorithm: str, seed: int, *, noise: bool = False, most_steps: int | None = None) -> dict[str, Any]:
    """One run, as JSON.

    Args:
        algorithm: key of `SETTINGS`.
        seed: of the run.
        noise: rewards by chance.
        most_steps: None takes that of the settings.
    """
    setting = SETTINGS[algorithm]
    changes = dict(setting.changes)
    with tempfile.TemporaryDirectory() as folder:
        if RECIPES[algorithm].baseline == "none":
            changes["data_file"] = write_answers(Path(folder), seed, noise=noise)
        result = await run(
            seed,
            noise=noise,
            goal=GOAL,
            most_steps=most_steps or setting.most_steps,
            algorithm=algorithm,
            **changes,
        )
    second = second_measure(algorithm, result.rows)
    return {
        **result.summary(),
        "curve": [round(mean, 4) for mean in result.curve],
        "second": None if second is None else [round(value, 4) for value in second],
    }


def measure(algorithm: str, seeds: int) -> dict[str, Any]:
    """All runs of one algorithm, and its control."""
    print(f"{algorithm} ...", file=sys.stderr, flush=True)
    runs = [asyncio.run(train(algorithm, seed)) for seed in range(seeds)]
    return {
        "algorithm": algorithm,
        "changes": dict(SETTINGS[algorithm].changes),
        "most_steps": SETTINGS[algorithm].most_steps,
        "runs": runs,
        "control": asyncio.run(train(algorithm, 0, noise=True)),
    }


def problems(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each promise that was not kept."""
    found = []
    for result in results:
        name = result["algorithm"]
        found += [
            f"{name} did not reach {GOAL} with seed {one['seed']}: {one['best']} in {result['most_steps']} steps"
            for one in result["runs"]
            if one["steps"] is None
        ]
        if result["control"]["steps"] is not None:
            found.append(f"{name} reached {GOAL} with rewards by chance")
        if RECIPES[name].kind == "preference" and _late(result["runs"]) < GOAL:
            found.append(f"{name} agrees with {_late(result['runs']):.0%} of its pairs at the end")
        if RECIPES[name].kind == "likelihood" and _late(result["runs"]) <= _early(result["runs"]):
            found.append(f"{name} finds what it imitates no likelier than at first")
    return found


def _early(runs: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(one["second"][0] for one in runs)


def _late(runs: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(value for one in runs for value in one["second"][-LAST:])


def _second_note(result: Mapping[str, Any]) -> str:
    """The second measure in words."""
    kind = RECIPES[result["algorithm"]].kind
    if kind not in SECOND:
        return ""
    early, late, chance = _early(result["runs"]), _late(result["runs"]), _late([result["control"]])
    if kind == "preference":
        return f"{SECOND[kind]} {late:.2f} (by chance {chance:.2f})"
    return f"{SECOND[kind]} {early:.2f} to {late:.2f} (by chance to {chance:.2f})"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        f"| algorithm | steps to {GOAL} | CPU seconds | best reward | by chance | note |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        runs, setting = result["runs"], SETTINGS[result["algorithm"]]
        steps = ", ".join(str(one["steps"] or f"none of {result['most_steps']}") for one in runs)
        cpu = statistics.median(one["cpu_seconds"] for one in runs)
        changes = ", ".join(f"`{name}` {value}" for name, value in setting.changes.items())
        note = "; ".join(part for part in (changes, setting.why, _second_note(result)) if part)
        best = f"{min(one['best'] for one in runs):.2f}"
        control = f"{result['control']['best']:.2f}"
        lines.append(f"| {result['algorithm']} | {steps} | {cpu:.1f} | {best} | {control} | {note} |")
    return "\n".join(lines)


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Of each algorithm the run of median length, and all controls in grey."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "algorithms"})  # text stays text; equal bytes again
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    colors, styles = pyplot.get_cmap("tab10").colors, ("-", "--", ":", "-.")
    for place, result in enumerate(results):
        control = result["control"]["curve"]
        label = "rewards by chance" if place == 0 else None
        axes.plot(range(1, len(control) + 1), control, color="lightgrey", linewidth=0.8, label=label)
    for place, result in enumerate(results):
        middle = sorted(result["runs"], key=lambda one: one["steps"] or math.inf)[len(result["runs"]) // 2]["curve"]
        axes.plot(
            range(1, len(middle) + 1),
            middle,
            color=colors[place % len(colors)],
            linestyle=styles[place // len(colors) + 2 * (place % 2)],
            label=result["algorithm"],
        )
    axes.axhline(GOAL, color="black", linewidth=0.5)
    axes.set(xlabel="step", ylabel="mean share of the token in a step", ylim=(0, 1), xscale="log")
    ticks = [1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(ncols=2, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/algorithms"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = [measure(algorithm, options.seeds) for algorithm in options.only]
    print(table(results))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"goal": GOAL, "results": results}, indent=1)
    (options.output_dir / "algorithms.json").write_text(text + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: pip install 'grpo-agent-framework[plots]'", file=sys.stderr)
    else:
        plot(results, options.output_dir / "algorithms.svg")
    if found := problems(results):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
