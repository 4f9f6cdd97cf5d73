"""Three prepared sick runs, each without and with `auto_adjust`, and a healthy one: the held-out reward at the end.

A random two-layer model is to say the word that the user named, one of two: it has to read before it answers. It gets
the share of that word in its reply, less the share of the other one, so that saying one word to everybody is worth 0.

- rate: the learning rate is a hundred times too high.
- collapse: the other word costs nothing, so that one word to everybody is worth a half, and agents are sampled at a
  temperature of 0.4. The policy soon says one word always, and there is nothing left to find out by chance.
- equal: agents are sampled at a temperature of 0.05, so that nearly all conversations of a group are the same.
- healthy: none of these.

Held out are other sentences around the same words. Both runs of a seed are evaluated under the same keys.

    python benchmarks/sick_runs.py                          a markdown table, sick-runs.json and a plot for each
    python benchmarks/sick_runs.py --only rate --seeds 1    one of them, one seed

The plots need the `plots` extra. It ends with an error if a sick run was not better with `auto_adjust` on each seed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import TrainingStopped
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.evaluation.statistics import mean_interval, paired_difference
from stateset_agents.training.adjusting import told
from stateset_agents.training.parts import RunParts
from stateset_agents.training.trainer import Trainer

STEPS, CONVERSATIONS, SAMPLES = 100, 64, 8
WORDS = ("refund", "order")
TRAINED = (
    "What about the {}?",
    "I need help with my {}.",
    "Tell me of the {}, please.",
    "Is there a {}?",
    "My {} is not here.",
    "Where is the {}?",
)
HELD_OUT = (
    "The {} is what I need.",
    "How is your {} policy?",
    "Can you see my {} on the account?",
    "Thanks, and the {}?",
    "It is about a {}.",
    "When do you return the {}?",
)


@dataclass(frozen=True)
class Case:
    """One preparation.

    Attributes:
        what: is wrong, in a few words.
        settings: hyperparameters that replace those of the healthy run.
        temperature: of the agent.
        price: of the other word.
    """

    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    price: float = 1.0


CASES = {
    "rate": Case("learning rate 100 times too high", {"learning_rate": 0.1}),
    "collapse": Case("entropy collapses", temperature=0.4, price=0.0),
    "equal": Case("groups are equal", temperature=0.05),
    "healthy": Case("nothing is wrong"),
}


class NamedWord(RewardFunction):
    """The share of the word that the user named, less the share of the other one. Reads the sampled ids."""

    maximum = 1.0

    def __init__(self, tokens: Mapping[str, int], price: float) -> None:
        super().__init__()
        self.tokens, self.price = tokens, price

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        """See `RewardFunction.compute_reward`."""
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        share = {word: ids.count(token) / len(ids) for word, token in self.tokens.items()}
        named = share.pop(context["scenario"]["topic"])
        return RewardResult(named - self.price * sum(share.values()))


def scenarios(sentences: Sequence[str]) -> list[dict[str, Any]]:
    """Each sentence about each word."""
    return [
        {"id": f"{word}-{place}", "topic": word, "user_responses": [sentence.format(word)]}
        for word in WORDS
        for place, sentence in enumerate(sentences)
    ]


async def run(case: Case, seed: int, steps: int, *, auto_adjust: bool) -> dict[str, Any]:
    """Train once, and evaluate; as JSON."""
    begin = time.process_time()
    agent = MultiTurnAgent.from_model(
        "tiny", temperature=case.temperature, max_new_tokens=4, dtype="float32", device="cpu"
    )
    await agent.initialize()
    loaded = agent.runtime.model
    assert loaded is not None
    tokens = {}
    for word in WORDS:
        (tokens[word],) = loaded.tokenizer.encode(f" {word}")
    values = {
        "num_episodes": steps * CONVERSATIONS,
        "num_generations": 8,
        "batch_size": CONVERSATIONS,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "eval_every": 0,
        "save_every": 0,
        "mixed_precision": False,
        "seed": seed,
        "auto_adjust": auto_adjust,
    }
    trainer = Trainer(
        agent,
        ConversationEnvironment(scenarios(TRAINED), max_turns=1),
        NamedWord(tokens, case.price),
        TrainingConfig.from_profile("balanced", **(values | dict(case.settings))),
        RunParts(evaluation=ConversationEnvironment(scenarios(HELD_OUT), max_turns=1)),
    )
    await trainer.prepare()
    stopped = ""
    try:
        await trainer.run()
    except TrainingStopped as error:
        stopped = str(error).splitlines()[0]
    result = await trainer.evaluate(samples=SAMPLES)
    await agent.aclose()
    return {
        "seed": seed,
        "curve": [round(row["reward_mean"], 4) for row in trainer.rows],
        "moves": [move for row in trainer.rows for move in row.get("adjustments", ())],
        "told": told(trainer.rows),
        "stopped": stopped or trainer.stop_reason or "",
        "held_out": {group.scenario_id: group.rewards for group in result.groups},
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def measure(name: str, seeds: range, steps: int) -> dict[str, Any]:
    """All runs of one preparation."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    return {
        "case": name,
        "pairs": [
            {
                side: asyncio.run(run(CASES[name], seed, steps, auto_adjust=side == "with"))
                for side in ("without", "with")
            }
            for seed in seeds
        ],
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| run | seed | held-out reward without | with `auto_adjust` | difference | moves | steps without, with |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for pair in result["pairs"]:
            without, adjusted = pair["without"], pair["with"]
            cells = [CASES[result["case"]].what, str(without["seed"])]
            cells += [mean_interval(one["held_out"]).text(".2f") for one in (without, adjusted)]
            cells.append(paired_difference(without["held_out"], adjusted["held_out"]).text("+.2f"))
            cells += [str(len(adjusted["moves"])), f"{len(without['curve'])}, {len(adjusted['curve'])}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def problems(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each promise that was not kept."""
    found = []
    for result in results:
        for pair in result["pairs"]:
            without, adjusted = (mean_interval(pair[side]["held_out"]).mean for side in ("without", "with"))
            seed = pair["with"]["seed"]
            if result["case"] == "healthy":
                change = paired_difference(pair["without"]["held_out"], pair["with"]["held_out"])
                if change.high < 0:
                    found.append(f"a healthy run ended lower with seed {seed}: {adjusted:.2f} instead of {without:.2f}")
            elif adjusted <= without:
                found.append(f"{result['case']} was not cured with seed {seed}: {adjusted:.2f}, without {without:.2f}")
    return found


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Mean reward of each step; a dot for each move, and at the right the held-out reward of each run."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": result["case"]})  # text stays text; equal bytes again
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    longest = max(len(one["curve"]) for pair in result["pairs"] for one in pair.values())
    for place, pair in enumerate(result["pairs"]):
        for side, color in (("without", "tab:grey"), ("with", "tab:blue")):
            one = pair[side]
            label = f"{side} auto_adjust" if place == 0 else None
            steps = range(1, len(one["curve"]) + 1)
            axes.plot(steps, one["curve"], color=color, linewidth=1, alpha=0.8, label=label)
            end = mean_interval(one["held_out"])
            at = longest + 4 + 2 * place
            axes.errorbar(at, end.mean, [[end.mean - end.low], [end.high - end.mean]], fmt="o", color=color, ms=4)
        moved = [move["step"] for move in pair["with"]["moves"]]
        heights = [pair["with"]["curve"][step - 1] for step in moved]
        axes.plot(moved, heights, "v", color="tab:red", ms=5, label="a move" if place == 0 else None)
    axes.axvline(longest + 2, color="black", linewidth=0.5)
    axes.text(longest + 3, 1.06, "held-out", fontsize="small")
    axes.set(xlabel="step", ylabel="reward", ylim=(-0.3, 1.05), title=CASES[result["case"]].what)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/sick-runs"))
    parser.add_argument("--read", type=Path, help="draw the plots of an earlier sick-runs.json again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.read:
        results = json.loads(options.read.read_text(encoding="utf-8"))["results"]
    else:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        results = [measure(name, seeds, options.steps) for name in options.only]
    print(table(results))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"steps": options.steps, "results": results}, indent=1)
    (options.output_dir / "sick-runs.json").write_text(text + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: pip install 'grpo-agent-framework[plots]'", file=sys.stderr)
    else:
        for result in results:
            plot(result, options.output_dir / f"sick-{result['case']}.svg")
    if found := problems(results):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
