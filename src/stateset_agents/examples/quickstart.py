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
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.shipped import shipped

if TYPE_CHECKING:
    from ..training.trainer import Trainer

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
    resume: bool = False,
    quiet: bool = False,
    again: str | None = None,
) -> QuickstartResult:
    """Evaluate, train, evaluate again.

    Args:
        folder: run folder; one that holds a run already is refused.
        seed: of scenario order and sampling.
        episodes: training conversations; None takes the config's number.
        model: model name; None takes the config's.
        samples: conversations per held-out scenario; None takes the config's number.
        reward: what to train for instead of the config's rewards (evaluations always use the config's).
        resume: continue the run in `folder`; the untrained model is evaluated again, with the same result.
        quiet: no progress.
        again: the command that continues an interrupted run. Whoever gives one leaves Ctrl-C to the run; without it,
            cancelling the task saves as well.

    Raises:
        StatesetError: see `training.execution.execute`.
    """
    from ..config import Override, load_config
    from ..training.command import run_of
    from ..training.execution import execute

    wanted = [("training.seed", seed), ("training.num_episodes", episodes), ("agent.model_name", model)]
    overrides = [Override(key, value, "quickstart") for key, value in wanted if value is not None]
    config = load_config(shipped("configs/quickstart.yaml"), overrides=overrides, output_dir=str(folder))
    run = run_of(config)
    measured = _BeforeAndAfter(seed, run.reward, samples)
    report = await execute(
        replace(
            run,
            reward=reward or run.reward,
            quiet=quiet,
            resume=resume,
            again=again or f"quickstart({str(folder)!r}, resume=True)",
            catch_signals=again is not None,
            before=measured.before_training,
            after=measured.after_training,
        )
    )
    measured.write(Path(folder))
    return QuickstartResult(Path(folder), report.text, measured.data)


class _BeforeAndAfter:
    """The two evaluations, and what they say together."""

    def __init__(self, seed: int, judge: Any, samples: int | None) -> None:
        self.data: dict[str, Any] = {}
        self._seed, self._judge, self._samples = seed, judge, samples
        self._begin = time.monotonic()
        self._before: Any = None
        self._played: dict[int, Any] = {}

    async def before_training(self, trainer: Trainer, say: Callable[[str], None]) -> None:
        """Evaluate the model as it comes."""
        scenarios = (trainer.parts.evaluation or trainer.environment).episode_scenarios()
        say(f"1/3  {trainer.agent.config.model_name} on {len(scenarios)} held-out scenarios, untrained")
        self._before = await trainer.evaluate(samples=self._samples, reward=self._judge)
        say(self._before.summary())
        say("2/3  training")

    async def after_training(self, trainer: Trainer, say: Callable[[str], None]) -> str:
        """Evaluate the trained model in the same way, and compare."""
        from ..evaluation import compare
        from ..evaluation.statistics import mean_interval, paired_difference

        say("3/3  the same held-out scenarios again")
        before, after = self._before, await trainer.evaluate(samples=self._samples, reward=self._judge)
        say(after.summary())
        run = trainer.parts.folder
        assert run is not None  # noqa: S101 - the quickstart names one
        self._played = {0: before.groups, trainer.steps: after.groups}
        comparison = compare(before, after)
        answers = [Answers.of(result).right for result in (before, after)]
        first, last = (mean_interval(right) for right in answers)
        change = paired_difference(answers[0], answers[1])
        self.data = {
            "seed": self._seed,
            "seconds": time.monotonic() - self._begin,
            "answers": {"before": first.to_dict(), "after": last.to_dict(), "change": change.to_dict()},
            **comparison.to_dict(),
        }
        lines = [
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
            f"{self.data['seconds'] / 60:.1f} minutes. The trained model is in {run.final_model_dir},",
            f"every conversation in {run.path / 'trajectories.jsonl'}, the curve in {run.path / 'metrics.jsonl'}.",
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Put both evaluations into the folder of the finished run."""
        from ..tracking.run_folder import RunFolder

        with RunFolder.open(folder) as run:
            for step, groups in self._played.items():
                run.log_trajectories(step, groups, phase="eval")
            run.write_text("quickstart.json", json.dumps(self.data, indent=1, default=str))


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
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in --output-dir")
    options = parser.parse_args(arguments)
    if options.resume and not options.output_dir:
        parser.error("--resume continues the run in --output-dir: name it")
    folder = options.output_dir or _free_folder()
    # Threads that wait must not spin for long on a machine with two cores; to wake them from sleep takes longer than
    # most operations on a small model do.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from ..core.errors import EXIT_INTERRUPTED, StatesetError

    try:
        result = asyncio.run(
            quickstart(
                folder,
                seed=options.seed,
                episodes=options.episodes,
                model=options.model,
                samples=options.samples,
                resume=options.resume,
                again=_resume_command(folder, options),
            )
        )
    except StatesetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before there was a run
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(result.text, end="")
    return 0


def _resume_command(folder: str | Path, options: argparse.Namespace) -> str:
    command = [sys.executable, "-m", "stateset_agents.examples.quickstart", "--output-dir", str(folder)]
    for name in ("seed", "episodes", "model", "samples"):
        value = getattr(options, name)
        if value:
            command += [f"--{name}", str(value)]
    return shlex.join([*command, "--resume"])


def _free_folder() -> Path:
    """The default folder, or the first of its numbered successors that holds no run."""
    path, number = Path(DEFAULT_FOLDER), 2
    while path.exists():
        path, number = Path(f"{DEFAULT_FOLDER}-{number}"), number + 1
    return path


if __name__ == "__main__":
    sys.exit(main())
