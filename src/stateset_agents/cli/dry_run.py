"""What `grpo-train --dry-run` prints: every value with its origin, and what the run amounts to.

Invariant: the rows are the same on a terminal and in a pipe; a terminal gets them as a table, a pipe as plain lines
`key = value  (origin)`, one value a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from ..config import RunConfig
from ..core.scenario import load_scenarios
from ..models.preflight import preflight

Row = tuple[str, str, str]
"""Key, value and origin."""


def print_dry_run(config: RunConfig) -> None:
    """Print the resolved config and its consequences to stdout.

    Raises:
        DataError: a scenario file does not hold scenarios.
        ModelError: the model does not exist or does not fit; everything else has been printed by then.
    """
    scenarios = _count_scenarios(config)
    values, amounts = list(value_rows(config)), list(amount_rows(config, scenarios))
    if stdout_is_terminal():
        _print_tables(values, amounts)
    else:
        for key, value, origin in values:
            print(f"{key} = {value}  ({origin})")
        print()
        for key, value, _ in amounts:
            print(f"{key}: {value}")
    for note in config.notes:
        print(f"note: {note}")
    for key, reason in config.unused:
        print(f"no effect: {key} ({reason})")
    needed = preflight(
        config.agent.model_name,
        training=True,
        lora_r=config.training.lora.r if config.training.lora else None,
        dtype=config.agent.dtype,
        device=config.agent.device,
    )
    print(f"memory: {needed if needed is not None else 'none for a model without weights'}")


def stdout_is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def value_rows(config: RunConfig) -> Iterator[Row]:
    """Every value of the config, with defaults, and where it came from."""
    data = config.to_dict()
    for section in ("agent", "environment", "rewards", "combination_method", "training", "logging"):
        if section in data:
            yield from _rows(section, data[section], config.origins)
    if not config.rewards:
        yield "rewards", "the default reward", "default"
    for name in config.environment_variables:
        shown = data["environment_variables"].get(name, "***")
        yield f"environment_variables.{name}", _text(shown), _origin(f"environment_variables.{name}", config.origins)
    yield "output_dir", str(config.output_dir), config.origins.get("output_dir", "default")


def amount_rows(config: RunConfig, scenarios: int | None) -> Iterator[Row]:
    """What the numbers of the config amount to.

    Args:
        config: the run.
        scenarios: number of training scenarios; None where a custom environment brings its own.
    """
    plan, training = config.training.plan, config.training
    tokens = plan.conversations_per_step * config.environment.max_turns * config.agent.max_new_tokens
    yield (
        "steps",
        f"{plan.total_steps} of {plan.conversations_per_step} episodes "
        f"({plan.groups_per_step} scenarios x {training.num_generations})",
        "",
    )
    yield "episodes", f"{plan.total_episodes}", ""
    if scenarios is not None:
        rounds = plan.total_steps * plan.groups_per_step / scenarios
        yield "scenarios", f"{scenarios}, each visited about {rounds:.1f} times", ""
    yield "passes per step", f"{plan.micro_batches_per_step} of {training.batch_size} conversations", ""
    yield "sampled tokens per step", f"at most {tokens:,}", ""
    yield "warm-up", f"{plan.warmup_steps} steps", ""
    yield "checkpoint", _every(plan.save_every_steps, "at the end only"), ""
    yield "evaluation", _every(plan.eval_every_steps, "never"), ""
    if training.early_stopping:
        yield "early stopping", f"after {plan.patience_evaluations} evaluations without improvement", ""


def _every(steps: int, otherwise: str) -> str:
    if steps == 0:
        return otherwise
    return "after every step" if steps == 1 else f"every {steps} steps"


def _rows(key: str, value: Any, origins: Any) -> Iterator[Row]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _rows(f"{key}.{name}", item, origins)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and key == "rewards":
        for i, item in enumerate(value):
            yield f"{key}[{i}]", _text(item), _origin(key, origins)
    else:
        yield key, _text(value), _origin(key, origins)


def _origin(key: str, origins: Any) -> str:
    """The origin of a key, or of the nearest mapping that was given as a whole."""
    while key:
        if key in origins:
            return str(origins[key])
        key = key.rpartition(".")[0]
    return "default"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 100 else text[:97] + "..."


def _count_scenarios(config: RunConfig) -> int | None:
    if config.environment.scenarios_file:
        return len(load_scenarios(config.environment.scenarios_file))
    return len(config.environment.scenarios) if config.environment.scenarios else None


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
