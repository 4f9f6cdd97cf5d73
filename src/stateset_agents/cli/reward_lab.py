"""`grpo-reward-lab`: where is a reward fooled?

Invariant: this module turns arguments into rewards and cases, and prints what was found. Being fooled is a finding and
no error; a lab in which nothing could be judged is one.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .._version import __version__
from ..config import load_config
from ..core.errors import ConfigError
from ..evaluation.reward_lab import (
    HALVES,
    MARGIN,
    Candidate,
    Case,
    Findings,
    as_json,
    as_markdown,
    as_text,
    every_built_in,
    load_cases,
    measure,
    named,
    parts_of,
    shipped_cases,
    stage,
)
from .console import EXIT_CODES_HELP, DocumentedCommand, reporting_errors
from .train import find_config

_CONFIGS = (".yaml", ".yml", ".json")
_EPILOG = f"""\b
Examples:
  grpo-reward-lab
  grpo-reward-lab helpfulness safety --verbose
  grpo-reward-lab my_rewards.politeness_reward --half seen
  grpo-reward-lab configs/customer_service.yaml --json
  grpo-reward-lab '{{"type": "conciseness", "optimal_length": 40}}'
  grpo-reward-lab correctness --cases my_cases.json

{EXIT_CODES_HELP}
"""


class Half(StrEnum):
    """Which shipped cases."""

    SEEN = "seen"
    UNSEEN = "unseen"
    BOTH = "both"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-reward-lab {__version__}")
        raise typer.Exit


def _share(value: float) -> float:
    if not 0 <= value <= 1:  # nan is neither
        raise typer.BadParameter(f"{value:g} is no share; it must be a number from 0 to 1")
    return value


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def reward_lab(
    rewards: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REWARD",
            help="Names of built-in rewards, dotted paths of your own, entries of a config's rewards as JSON, or "
            "config files whose rewards are taken. [default: every built-in one]",
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cases of your own, in place of those that are shipped.")
    ] = None,
    half: Annotated[
        Half | None, typer.Option(help="Which of the shipped cases. [default: both]", show_default=False)
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            callback=_share,
            help="Of a reward's range, from 0 to 1: by how much the honest conversation has to win.",
        ),
    ] = MARGIN,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every attack that fooled a reward, with what was said.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run rewards over honest conversations and attacks on them, and print where they are fooled."""
    with reporting_errors(debug=debug, interrupted="interrupted: the lab keeps nothing."):
        if json and (markdown or verbose):
            raise ConfigError(f"--json prints everything there is: leave out --{'markdown' if markdown else 'verbose'}")
        if markdown and verbose:
            raise ConfigError("--markdown prints the tables alone: leave out --verbose")
        candidates = _candidates(rewards) if rewards else every_built_in()
        halves = _cases(cases, half)
        findings = asyncio.run(_measure(candidates, halves, margin))
        missing = [candidate for candidate in candidates if candidate.reward is None]
        if json:
            print(as_json(findings, missing))
        elif markdown:
            print(as_markdown(findings, missing))
        else:
            print(as_text(findings, missing, verbose=verbose))
        if not any(one.tally().tried for one in findings):
            raise ConfigError(
                "nothing was judged: no reward gave a score to both an attack and the honest conversation"
            )


def _cases(file: Path | None, half: Half | None) -> dict[str, tuple[Case, ...]]:
    if file is not None:
        if half is not None:
            raise ConfigError("--half chooses among the shipped cases, --cases names others: give one of them")
        return {file.stem: load_cases(file)}
    asked = list(HALVES) if half in (None, Half.BOTH) else [str(half)]
    return {name: shipped_cases(name) for name in asked}


def _candidates(names: list[str]) -> list[Candidate]:
    found: list[Candidate] = []
    for name in names:
        if Path(name).suffix in _CONFIGS and not name.startswith("{"):
            from ..training.from_config import build_reward

            config = load_config(find_config(Path(name)))
            config.apply_environment_variables()
            found += parts_of(build_reward(config))
        else:
            found.append(named(name, Path.cwd()))
    return found


async def _measure(candidates: list[Candidate], halves: dict[str, tuple[Case, ...]], margin: float) -> list[Findings]:
    staged = {half: await stage(cases) for half, cases in halves.items()}
    return [
        found
        for candidate in candidates
        if candidate.reward is not None
        for found in await measure(candidate.reward, staged, name=candidate.name, margin=margin)
    ]


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="grpo-reward-lab")


if __name__ == "__main__":
    main()
