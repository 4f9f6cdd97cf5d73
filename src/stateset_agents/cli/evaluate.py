"""`grpo-evaluate`: how good is a trained agent?

Invariant: this module only turns arguments into a question and prints the answer; what cannot be written is told before
anything is played, and `--help` answers without loading torch.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._version import __version__
from ..config.data_files import find_data_file
from ..core.errors import EXIT_INTERRUPTED, EXIT_STOPPED, ConfigError
from .console import EXIT_CODES_HELP, DocumentedCommand, reporting_errors
from .train import find_config

if TYPE_CHECKING:
    from ..core.trajectory import MultiTurnTrajectory
    from ..evaluation.report import Report

_EPILOG = f"""\b
Examples:
  grpo-evaluate runs/mine
  grpo-evaluate runs/mine --scenarios-file data/heldout.json --output-file results.json --html results.html
  grpo-evaluate runs/second --compare-with runs/first
  grpo-evaluate runs/mine --config-file my_config.yaml --samples 8

A checkpoint is a run folder, one of its checkpoints/step-N, its final_model, or a save_path. Its own records say what
to play and how to judge it; what it names beyond itself (tools, rewards, environments, models and files of your own) is
run and loaded only where --config-file names it too. The same key gives the same episodes again.

Ctrl-C prints what was measured so far, and so does an error once the checkpoint itself was played, which then gives the
exit code. A second Ctrl-C leaves at once.

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-evaluate {__version__}")
        raise typer.Exit


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def evaluate(
    checkpoint_path: Annotated[
        str, typer.Argument(metavar="CHECKPOINT_PATH", help="A run folder or a checkpoint.", show_default=False)
    ],
    config_file: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXT",
            help="Evaluation configuration, as grpo-train takes it: its agent, environment and rewards win over the "
            "checkpoint's, and may name code.",
        ),
    ] = None,
    num_episodes: Annotated[
        int | None,
        typer.Option(
            metavar="INTEGER",
            help="Number of evaluation episodes, spread evenly over the scenarios and rounded up to whole samples of "
            "them. [default: 100]",
        ),
    ] = None,
    scenarios_file: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXT", help="Scenarios to play. [default: those that the run held out, else those it trained on]"
        ),
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option(metavar="TEXT", help="Save results to this file, as JSON with all conversations.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Comma-separated metrics: reward, length, success_rate, engagement, helpfulness, safety, "
            "conciseness, task_completion. [default: reward,length,success_rate and the built-in rewards beside]",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print each episode as it ends.")] = False,
    compare_with: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another checkpoint, played on the same scenarios under the same keys."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            "--trials",
            metavar="INTEGER",
            help="Episodes of each scenario; several give pass^k and pass@k. [default: what --num-episodes makes]",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="TEXT", help="Save one self-contained page with plots and conversations to this file."),
    ] = None,
    floors: Annotated[
        bool,
        typer.Option(
            "--floors/--no-floors",
            help="Measure an agent that does nothing and the untrained model too, to read every number beside.",
        ),
    ] = True,
    key: Annotated[
        str, typer.Option(metavar="TEXT", help="Names the sampling noise: another key plays other episodes.")
    ] = "evaluation",
    no_gpu: Annotated[bool, typer.Option("--no-gpu", help="Evaluate on the CPU even where there is a GPU.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Evaluate a trained agent's performance."""
    with reporting_errors(debug=debug, interrupted="interrupted before anything was measured."):
        from ..evaluation.text_report import text_report

        named = _metrics(metrics)
        _require_writable(("--output-file", output_file), ("--html", html))
        from ..training.evaluating import Asked, evaluate_trained

        asked = Asked(
            checkpoint_path,
            compare_with=compare_with,
            config_file=None if config_file is None else find_config(config_file),
            scenarios_file=None if scenarios_file is None else _found(scenarios_file),
            device="cpu" if no_gpu else None,
            num_episodes=num_episodes,
            samples=samples,
            key=key,
            floors=floors,
            metrics=named,
        )
        report = asyncio.run(evaluate_trained(asked, _show if verbose else None))
        print(text_report(report), end="")
        _save(report, output_file, html)
        if report.failure is not None:
            raise report.failure
        if report.interrupted:
            raise typer.Exit(EXIT_INTERRUPTED)
        if not report.result.episodes:
            typer.echo("no episode could be scored: see the notes above", err=True)
            raise typer.Exit(EXIT_STOPPED)


def _found(file: Path) -> Path:
    """A data file as a config in the working directory would find it: here, in `GRPO_DATA_DIR`, or in the package."""
    return find_data_file(str(file), Path.cwd(), os.environ) or find_config(file)


def _metrics(text: str | None) -> tuple[str, ...]:
    from ..config.problems import did_you_mean
    from ..evaluation.report import METRICS

    if text is None:
        return METRICS
    named = [name.strip() for name in text.split(",")]
    problems = []
    for name in dict.fromkeys(named):
        if name not in METRICS:
            near = did_you_mean(name, METRICS)
            hint = f'; did you mean "{near}"?' if near else "."
            problems.append(f'--metrics has "{name}", which does not exist{hint} Known: {", ".join(METRICS)}')
    if problems:
        raise ConfigError(*problems)
    return tuple(name for name in METRICS if name in named)


def _require_writable(*files: tuple[str, Path | None]) -> None:
    """Look before a long evaluation whether its results can be saved at its end."""
    from ..tracking.disk import require_writable

    for option, file in files:
        if file is None:
            continue
        try:
            if file.is_dir():
                raise ConfigError(f"{option} is {file}, which is a folder; name a file")
            if file.exists() and not file.is_file():
                raise ConfigError(f"{option} is {file}, a device or a pipe, which would be replaced; name a file")
            if not file.absolute().parent.is_dir():
                raise ConfigError(f"{option} is {file}, and there is no folder {file.absolute().parent}; make it first")
            require_writable(file)
        except OSError as error:
            raise ConfigError(f"{option} is {file}, which cannot be written: {error.strerror}") from None


def _save(report: Report, output_file: Path | None, html: Path | None) -> None:
    from ..evaluation.page import page
    from ..tracking.disk import replace_text

    written: list[tuple[Path | None, Callable[[], str]]] = [
        (output_file, lambda: json.dumps(report.to_dict(), indent=1, ensure_ascii=False, default=str)),
        (html, lambda: page(report)),
    ]
    for file, text in written:
        if file is not None:
            replace_text(file, text())
            typer.echo(f"saved to {file}", err=True)


def _show(episode: MultiTurnTrajectory, done: int, total: int) -> None:
    """One episode of `--verbose`."""
    from ..evaluation.compare import episode_lines

    print(f"[{done}/{total}]", "\n  ".join(episode_lines(episode)), end="\n\n", flush=True)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="grpo-evaluate")


if __name__ == "__main__":
    main()
