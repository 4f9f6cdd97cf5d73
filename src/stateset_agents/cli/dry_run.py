"""What `grpo-train --dry-run` prints: every value with its origin, and what the run amounts to.

Invariant: the rows are the same on a terminal and in a pipe; a terminal gets them as a table, a pipe as plain lines
`key = value  (origin)`, one value a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..agents import MultiTurnAgent
from ..config import RunConfig
from ..config.training import count
from ..core.environment import Environment
from ..tracking.run_folder import RunFolder
from ..training.beforehand import require_memory, require_possible
from ..training.command import run_of
from ..training.from_config import build_records, idle_reward_keys
from ..training.resume import last_state
from ..training.step_size import longest

Row = tuple[str, str, str]
"""Key, value and origin."""


def print_dry_run(config: RunConfig, *, resume: bool = False, resume_from: Path | None = None) -> None:
    """Print the resolved config and its consequences to stdout, then refuse what the run itself would refuse.

    Everything but the model is really made: modules are imported, scenarios and ground truth are read.

    Args:
        config: resolved.
        resume: whether the run in `config.output_dir` is to be continued.
        resume_from: the checkpoint that a new run is to start from.

    Raises:
        ConfigError: a class or reward that the config names cannot be made.
        DataError: a data file does not hold what it should.
        ModelError: the model does not exist or does not fit; everything else has been printed by then.
        RunFolderError, CheckpointError: the run cannot begin or go on there; everything has been printed by then.
    """
    run = replace(run_of(config), resume=resume, resume_from=resume_from)
    environment, evaluated, reward = run.environment, run.evaluation, run.reward
    idle = idle_reward_keys(config, reward)
    config = run.source or config
    read = build_records(config.training)
    records = None if read is None else len(read)
    values, amounts = list(value_rows(config)), list(amount_rows(config, run.agent, environment, evaluated, records))
    if stdout_is_terminal():
        _print_tables(values, amounts)
    else:
        for key, value, origin in values:
            print(f"{key} = {value}  ({origin})")
        print()
        for key, value, _ in amounts:
            print(f"{key}: {value}")
    scenarios = [scenario.to_dict() for scenario in environment.episode_scenarios()]
    plays = records is None or config.training.eval_every > 0
    played = (*environment.notices(), *reward.notices(scenarios)) if plays else ()
    for note in (*config.notes, *played):
        print(f"note: {note}")
    for key, reason in (*config.unused, *idle, *(environment.unused() if plays else ())):
        print(f"no effect: {key} ({reason})")
    needed = require_memory(run, read)
    print(f"memory: {needed if needed is not None else 'none for a model without weights'}")
    require_possible(run, read)
    if resume:
        folder = RunFolder.open(config.output_dir)
        last = last_state(folder, run, lambda text: print(f"note: {text}"), read)
        print(f"resumes: {config.output_dir} {'from its beginning' if last is None else f'from {last.path.name}'}")


def stdout_is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def value_rows(config: RunConfig) -> Iterator[Row]:
    """Every value of the config, with defaults, and where it came from."""
    data = config.to_dict()
    for section in ("agent", "environment", "rewards", "combination_method", "training", "logging"):
        if section in data:
            yield from _rows(section, data[section], config)
    if not config.rewards:
        yield "rewards", "the default reward", "default"
    for name in config.environment_variables:
        shown = data["environment_variables"].get(name, "***")
        key = f"environment_variables.{name}"
        yield key, _text(shown), config.origin(key)
    yield "output_dir", str(config.output_dir), config.origin("output_dir")


def amount_rows(
    config: RunConfig,
    agent: MultiTurnAgent,
    environment: Environment,
    evaluated: Environment | None,
    records: int | None = None,
) -> Iterator[Row]:
    """What the numbers of the config amount to.

    Args:
        config: the run.
        agent: who is trained.
        environment: what is trained on.
        evaluated: what evaluations are held on; None where there are none.
        records: how many the data file holds; None for a run that plays its conversations.
    """
    plan, training = config.training.plan, config.training
    if records is None:
        yield from _played(config, agent, environment)
    else:
        epochs = plan.total_episodes / records
        yield "steps", f"{plan.total_steps} of {plan.conversations_per_step} records", ""
        yield "records", f"{records}, each read about {epochs:.1f} times (epochs)", ""
        yield "episodes", f"{plan.total_episodes}, one for each time that a record is read", ""
    pairs = records is not None and training.recipe.kind == "preference"
    at_once = f"{max(1, training.batch_size // 2)} pairs" if pairs else f"{training.batch_size} conversations"
    yield "passes per step", f"{plan.micro_batches_per_step} of {at_once}", ""
    yield "warm-up", "1 step" if plan.warmup_steps == 1 else f"{plan.warmup_steps} steps", ""
    yield "checkpoint", _every(plan.save_every_steps, "at the end only"), ""
    yield "evaluation", _evaluation(config, environment, evaluated), ""
    if training.early_stopping:
        yield "early stopping", f"after {plan.patience_evaluations} evaluations without improvement", ""


def _played(config: RunConfig, agent: MultiTurnAgent, environment: Environment) -> Iterator[Row]:
    plan, training = config.training.plan, config.training
    tokens = plan.conversations_per_step * agent.most_tokens(longest(environment))
    scenarios = len(environment.scenarios)
    yield (
        "steps",
        f"{plan.total_steps} of {plan.conversations_per_step} episodes "
        f"({count(plan.groups_per_step, 'scenario')} x {training.num_generations})",
        "",
    )
    yield "episodes", f"{plan.total_episodes}", ""
    if scenarios:
        rounds = plan.total_steps * plan.groups_per_step / scenarios
        yield "scenarios", f"{scenarios}, each visited about {rounds:.1f} times", ""
    yield "sampled tokens per step", f"at most {tokens:,}", ""


def _evaluation(config: RunConfig, environment: Environment, evaluated: Environment | None) -> str:
    when = _every(config.training.plan.eval_every_steps, "never")
    held = "training" if evaluated is None and config.training.data_file is None else "held-out"
    if when == "never":
        return when
    scenarios = count(len((evaluated or environment).episode_scenarios()), f"{held} scenario")
    return f"{when}: {scenarios} x {count(config.training.eval_samples, 'conversation')}"


def _every(steps: int, otherwise: str) -> str:
    if steps == 0:
        return otherwise
    return "after every step" if steps == 1 else f"every {steps} steps"


def _rows(key: str, value: Any, config: RunConfig) -> Iterator[Row]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _rows(f"{key}.{name}", item, config)
    elif key == "rewards":
        for i, item in enumerate(value):
            yield f"{key}[{i}]", _text(item), config.origin(f"{key}[{i}]")
    else:
        yield key, _text(value), config.origin(key)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 100 else text[:97] + "..."


def _print_tables(values: list[Row], amounts: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("origin", overflow="fold")
    for key, value, origin in values:
        style = "dim" if origin == "default" or origin.startswith("profile ") else ""
        table.add_row(Text(key, style), Text(value, style), Text(origin, "dim"))
    console = Console()
    console.print(table)
    console.print()
    summary = Table.grid(padding=(0, 2))
    for key, value, _ in amounts:
        summary.add_row(Text(key, "bold"), Text(value))
    console.print(summary)
