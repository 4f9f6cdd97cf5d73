"""`grpo-train`: train an agent from a config file.

Invariant: this module only turns arguments into config values and hands the resolved run on; `--help`, `--version` and
every config error answer without loading torch.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .._version import __version__
from ..config import Override, RunConfig, load_config
from ..config.resolve import DEFAULT_OUTPUT_DIR
from ..core.errors import ConfigError
from ..core.shipped import shipped_root
from ..core.signals import asking_to_stop, interrupt
from ..tracking.logging_setup import setup_logging
from .again import as_typed, own_config, typed_before
from .console import EXIT_CODES_OF_TRAINING, DocumentedCommand, reporting_errors
from .readers import outlive_readers

logger = logging.getLogger("stateset_agents.train")

_EPILOG = f"""\b
Examples:
  grpo-train configs/customer_service.yaml
  grpo-train configs/tutoring.yaml --model-name smollm2-135m-instruct --num-episodes 2000
  grpo-train configs/my_agent.yaml --dry-run
  grpo-train --output-dir runs/first --resume

Units: an episode is one conversation; --num-episodes, --save-every, --eval-every and --patience count episodes and are
rounded up to whole training steps. --dry-run shows the result.

Which value wins: command line, then GRPO_* environment variables, then training.overrides, then the rest of the config
file, then the profile.

Ctrl-C saves and prints the command that continues; an update that could not be made and saved within
training.grace_period (10 s) is given up, and made again by it. A second one leaves at once and loses what was not
saved. A reward or environment of yours that blocks (time.sleep, a request without await) holds the first one up.

{EXIT_CODES_OF_TRAINING}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-train {__version__}")
        raise typer.Exit


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def train(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG_FILE",
            help="Training configuration, YAML or JSON. With --resume it may be left out.",
            show_default=False,
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Model name or path: a Hugging Face name or folder, smollm2-135m-instruct, tiny, or stub://echo "
            "(no weights; nothing is trained). [default: openai/gpt-oss-120b]",
        ),
    ] = None,
    output_dir: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Run folder: checkpoints, metrics, the trained model. [default: ./outputs]"),
    ] = None,
    num_episodes: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Number of training conversations. [default: 1000]")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Training profile: conservative (least memory), balanced, aggressive, experimental. "
            "[default: balanced]",
        ),
    ] = None,
    auto_adjust: Annotated[
        bool | None,
        typer.Option(
            "--auto-adjust/--no-auto-adjust",
            help="Move settings when training turns unhealthy.",
        ),
    ] = None,
    early_stopping: Annotated[
        bool | None,
        typer.Option("--early-stopping/--no-early-stopping", help="Stop when evaluations no longer improve."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="INTEGER",
            help="Episodes without improvement before early stopping, at least 3 evaluations. [default: 50]",
        ),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="Save a checkpoint every N episodes; 0: only at the end. [default: 100]"),
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Evaluate every N episodes; 0: never. [default: 50]")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="TEXT", help="DEBUG, INFO, WARNING, ERROR or CRITICAL. [default: INFO]")
    ] = None,
    wandb_project: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Send metrics to this Weights & Biases project. Nothing is sent without it."),
    ] = None,
    no_gpu: Annotated[bool, typer.Option("--no-gpu", help="Train on the CPU even where there is a GPU.")] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Seed of every random choice. [default: 0]")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --output-dir from its last checkpoint, as it was told: no other option is "
            "needed, and what is given and differs is refused.",
        ),
    ] = False,
    resume_from: Annotated[
        str | None, typer.Option(metavar="PATH", help="Start from this checkpoint, in a run folder of its own.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print every value with its origin and what it amounts to in steps, tokens and memory; refuse what "
            "the run would refuse, short of loading the model.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log at DEBUG and print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train a multi-turn conversational agent using GRPO."""
    flags = [
        ("agent.model_name", model_name, "--model-name"),
        ("training.num_episodes", num_episodes, "--num-episodes"),
        ("training.profile", profile, "--profile"),
        ("training.auto_adjust", auto_adjust, _switch("auto-adjust", auto_adjust)),
        ("training.early_stopping", early_stopping, _switch("early-stopping", early_stopping)),
        ("training.patience", patience, "--patience"),
        ("training.save_every", save_every, "--save-every"),
        ("training.eval_every", eval_every, "--eval-every"),
        ("training.seed", seed, "--seed"),
        (
            "logging.level",
            "DEBUG" if debug and log_level is None else log_level,
            "--log-level" if log_level else "--debug",
        ),
        ("logging.wandb.project", wandb_project, "--wandb-project"),
        ("agent.device", "cpu" if no_gpu else None, "--no-gpu"),
    ]
    if config_file is None and not resume:
        context.fail(
            "Missing argument 'CONFIG_FILE'. Only --resume, which goes on with the run in --output-dir, needs none."
        )
    overrides = [Override(key, value, name) for key, value, name in flags if value is not None]
    with reporting_errors(debug=debug):
        if resume and resume_from is not None:
            raise ConfigError(
                "--resume continues the run in --output-dir, --resume-from starts a new run from a checkpoint: "
                "give one of them"
            )
        if resume_from is not None and not resume_from.strip():
            raise ConfigError("--resume-from is empty (a variable that is not set?): name a checkpoint or a run folder")
        if output_dir is not None and not output_dir.strip():
            raise ConfigError("--output-dir is empty (a variable that is not set?): name a folder, or leave it out")
        folder = Path(output_dir or DEFAULT_OUTPUT_DIR)
        before: list[Override] = []
        if resume:
            given = {override.key for override in overrides}
            before = [override for override in typed_before(folder) if override.key not in given]
            overrides += before
        file = None if config_file is None else find_config(config_file)
        if file is None:
            config = own_config(folder, overrides, output_dir)
        else:
            config = load_config(file, overrides=overrides, output_dir=output_dir)
        if file != config_file:
            note = f"{config_file} is not here: using the one that comes with the package."
            config = replace(config, notes=(note, *config.notes))
        if before:
            config = replace(config, notes=(f"as at its start: {as_typed(before)}", *config.notes))
        start = None if resume_from is None else Path(resume_from)
        # Before torch is loaded: it reads CUDA_VISIBLE_DEVICES only once.
        config.apply_environment_variables()
        if dry_run:
            from .dry_run import print_dry_run

            print_dry_run(config, resume=resume, resume_from=start)
        else:
            print(str(run(config, resume=resume, resume_from=start)).rstrip("\n"))


def find_config(name: Path) -> Path:
    """The file itself, or the one of that name that comes with the package, such as `configs/my_agent.yaml`."""
    if name.exists() or name.is_absolute() or not (shipped_root() / name).is_file():
        return name
    return shipped_root() / name


def run(config: RunConfig, *, resume: bool, resume_from: Path | None) -> Any:
    """Say what the config amounts to, then train.

    Returns:
        The run's report; its text is what the command prints.
    """
    setup_logging(config.logging.level, form=config.logging.format)
    for note in config.notes:
        logger.info("%s", note)
    for key, reason in config.unused:
        logger.warning("%s has no effect: %s.", key, reason)
    from ..training.command import run_training

    return run_training(config, resume=resume, resume_from=resume_from)


def _switch(name: str, value: bool | None) -> str:
    return f"--{name}" if value else f"--no-{name}"


def main() -> None:
    """Entry point of the console script."""
    for number in asking_to_stop():  # before there is a run, too, they are answered as Ctrl-C is
        signal.signal(number, interrupt)
    outlive_readers()
    app(prog_name="grpo-train")


if __name__ == "__main__":
    main()
