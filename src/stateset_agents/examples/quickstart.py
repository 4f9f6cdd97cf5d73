"""`make quickstart`: watch a real language model learn to hold better conversations, and see the proof.

Held-out scenarios (other products, values and words than those it trains on) are played before and after, with the
same keys, so that what differs is the weights. Everything is a plain `grpo-train` run of `configs/quickstart.yaml`
with an evaluation before and one after; `--help` shows what can be changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .shipped import shipped

DEFAULT_FOLDER = "runs/quickstart"


@dataclass(frozen=True)
class Answers:
    """Single questions of the held-out conversations, and how many got the fact they asked for.

    Attributes:
        right: shares over samples for each scenario.
    """

    right: dict[str, list[float]]

    @classmethod
    def of(cls, result: Any) -> Answers:
        """Count the answers of an evaluation."""
        from ..core.facts import provided_topics

        scenarios = {scenario.id: scenario for scenario in result.scenarios}
        right: dict[str, list[float]] = {}
        for group in result.groups:
            scenario = scenarios[group.scenario_id]
            for episode in group.trajectories:
                provided = provided_topics(episode.turns, scenario.facts, scenario.topics)
                right.setdefault(scenario.id, []).append(sum(provided.values()) / len(provided))
        return cls(right)


@dataclass(frozen=True)
class QuickstartResult:
    """What the quickstart measured.

    Attributes:
        folder: the run folder.
        text: what it prints at the end.
        data: the same as numbers.
    """

    folder: Path
    text: str
    data: dict[str, Any]


async def quickstart(
    folder: str | Path,
    *,
    seed: int = 0,
    episodes: int | None = None,
    model: str | None = None,
    samples: int | None = None,
    reward: Any = None,
    quiet: bool = False,
) -> QuickstartResult:
    """Evaluate, train, evaluate again.

    Args:
        folder: run folder; one that holds a run already is refused.
        seed: of scenario order and sampling.
        episodes: training conversations; None takes the config's number.
        model: model name; None takes the config's.
        samples: conversations per held-out scenario; None takes the config's number.
        reward: what to train for instead of the config's rewards (evaluations always use the config's).
        quiet: no progress.

    Raises:
        StatesetError: see `training.run.run_training`.
    """
    from ..config import Override, load_config
    from ..evaluation import compare
    from ..evaluation.statistics import mean_interval, paired_difference
    from ..tracking.progress import Progress
    from ..tracking.run_folder import RunFolder
    from ..training.from_config import build_agent, build_environment, build_eval_environment, build_reward
    from ..training.train import closing_report, finish, run_to_end
    from ..training.trainer import RunParts, Trainer

    wanted = [("training.seed", seed), ("training.num_episodes", episodes), ("agent.model_name", model)]
    overrides = [Override(key, value, "quickstart") for key, value in wanted if value is not None]
    config = load_config(shipped("configs/quickstart.yaml"), overrides=overrides, output_dir=str(folder))
    environment = build_environment(config)
    held_out = build_eval_environment(config) or environment
    judge = build_reward(config, environment)
    begin = time.monotonic()
    with RunFolder.create(folder, config_yaml=config.to_yaml()) as run, Progress() as progress:
        say = (lambda text: None) if quiet else progress.say
        agent: Any = build_agent(config)
        parts = RunParts(run, held_out, progress=None if quiet else progress, records={"run": config.to_dict()})
        trainer = Trainer(agent, environment, reward or judge, config.training, parts)
        say(f"1/3  {config.agent.model_name} on {len(held_out.episode_scenarios())} held-out scenarios, untrained")
        await trainer.prepare()
        before = await trainer.evaluate(samples=samples, reward=judge)
        say(before.summary())
        plan = config.training.plan
        say(f"2/3  training: {plan.total_steps} steps of {plan.conversations_per_step} conversations")
        await run_to_end(trainer)
        say("3/3  the same held-out scenarios again")
        after = await trainer.evaluate(samples=samples, reward=judge)
        say(after.summary())
        saved = finish(trainer, None)
        run.log_trajectories(0, before.groups, phase="eval")
        run.log_trajectories(trainer.steps, after.groups, phase="eval")
        comparison = compare(before, after)
        answers = [Answers.of(result).right for result in (before, after)]
        first, last = (mean_interval(right) for right in answers)
        change = paired_difference(answers[0], answers[1])
        data = {
            "seed": seed,
            "seconds": time.monotonic() - begin,
            "answers": {"before": first.to_dict(), "after": last.to_dict(), "change": change.to_dict()},
            **comparison.to_dict(),
        }
        run.write_text("quickstart.json", json.dumps(data, indent=1, default=str))
        text = "\n".join(
            [
                closing_report(trainer, saved),
                "One conversation, before and after (the scenario of median improvement)",
                comparison.side_by_side(),
                "",
                f"Held-out scenarios, {before.samples} samples each, 95 % intervals",
                comparison.summary(),
                f"answers  before  {first.text('.1%')}",
                f"answers  after   {last.text('.1%')}",
                f"answers  change  {change.text('+.1%')}",
                "(answers: questions that got the fact they asked for; success: conversations without a missing one)",
                "",
                f"{data['seconds'] / 60:.1f} minutes. The trained model is in {saved},",
                f"every conversation in {run.path / 'trajectories.jsonl'}, the curve in {run.path / 'metrics.jsonl'}.",
            ]
        )
        run.write_text("report.txt", text)
    return QuickstartResult(Path(folder), text, data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quickstart", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output-dir", help=f"run folder (default {DEFAULT_FOLDER}, or the next free number after it)")
    parser.add_argument("--seed", type=int, default=0, help="of scenario order and sampling (default 0)")
    parser.add_argument("--episodes", type=int, help="training conversations (default: the config's)")
    parser.add_argument("--model", help="model name (default: the config's, smollm2-135m-instruct)")
    parser.add_argument("--samples", type=int, help="conversations per held-out scenario (default: the config's)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin on a machine with two cores
    from ..core.errors import EXIT_INTERRUPTED, StatesetError

    try:
        result = asyncio.run(
            quickstart(
                options.output_dir or _free_folder(),
                seed=options.seed,
                episodes=options.episodes,
                model=options.model,
                samples=options.samples,
            )
        )
    except StatesetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: what was done so far is in the run folder", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(result.text)
    return 0


def _free_folder() -> Path:
    """The default folder, or the first of its numbered successors that holds no run."""
    path, number = Path(DEFAULT_FOLDER), 2
    while path.exists():
        path, number = Path(f"{DEFAULT_FOLDER}-{number}"), number + 1
    return path


if __name__ == "__main__":
    sys.exit(main())
