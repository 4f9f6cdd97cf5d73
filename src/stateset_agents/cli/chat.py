"""`grpo-chat`: talk to a trained agent in the terminal.

Invariant: this module opens the agent and hands lines on; `--help`, `--version` and every usage error answer without
loading torch.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._version import __version__
from ..core.errors import ConfigError
from .console import EXIT_CODES_HELP, DocumentedCommand, describe, reporting_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..agents.multi_turn import MultiTurnAgent
    from ..core.reward import RewardFunction
    from .terminal import Terminal

_EPILOG = f"""\b
Examples:
  grpo-chat outputs
  grpo-chat outputs/checkpoints/step-40 --temperature 0
  grpo-chat outputs --config-file configs/my_agent.yaml
  grpo-chat smollm2-135m-instruct --system "You answer in one sentence."
  printf 'Hello\\n/reward\\n' | grpo-chat outputs --seed 1

Type /help for what can be typed. Ctrl-C stops a reply, Ctrl-D ends. Where lines come from a pipe, all of them are
answered, and the exit code is that of the first command that could not be done.

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-chat {__version__}")
        raise typer.Exit


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def chat(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT_PATH",
            help="A run folder, one of its checkpoints, a final_model; or smollm2-135m-instruct, tiny or stub://..., "
            "which nobody has trained.",
            show_default=False,
        ),
    ],
    config_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own config, as grpo-train takes it: its agent and rewards win over the checkpoint's records, "
            "and may name code of yours, which a checkpoint may not.",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Of sampling; 0 is greedy. [default: the agent's]")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Longest reply, in tokens. [default: the agent's]")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt. [default: the agent's]")] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="The same seed and messages give the same replies. [default: another]"),
    ] = None,
    no_gpu: Annotated[bool, typer.Option("--no-gpu", help="Stay on the CPU even where there is a GPU.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Talk to a trained agent."""
    with reporting_errors(debug=debug, interrupted="interrupted: what was not saved is gone."):
        changes: dict[str, Any] = {
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "system_prompt": system,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        agent, reward, notes = _opened(checkpoint, config_file, "cpu" if no_gpu else None)
        agent.config = replace(agent.config, **given)
        _converse(agent, reward, notes, secrets.randbelow(10**6) if seed is None else seed)


def _opened(
    checkpoint: str, config_file: Path | None, device: str | None
) -> tuple[MultiTurnAgent, Callable[[], RewardFunction], list[str]]:
    """The agent, what gives its reward, and what the user should know."""
    from ..models.names import EMBEDDED, TINY, is_stub

    if is_stub(checkpoint) or (checkpoint in (EMBEDDED, TINY) and not Path(checkpoint).exists()):
        return _untrained(checkpoint, config_file, device)
    from ..training.trained import open_trained

    trained = open_trained(checkpoint, config_file=config_file, device=device)
    after = "" if trained.step is None else f", step {trained.step}"
    notes = [f"{trained.checkpoint}{after}", *(trained.notes[:1] if config_file else ())]
    return trained.agent, lambda: trained.reward, notes


def _untrained(
    name: str, config_file: Path | None, device: str | None
) -> tuple[MultiTurnAgent, Callable[[], RewardFunction], list[str]]:
    """A model as it is, for comparison; with a config file the agent that a run of it would begin with."""
    from ..agents.multi_turn import MultiTurnAgent
    from ..config import Override, load_config

    notes = [f"{name} as it is: nothing was trained"]
    if config_file is None:

        def none() -> RewardFunction:
            raise ConfigError(f"{name} was not trained for any; --config-file names a config with rewards")

        return MultiTurnAgent.from_model(name, device=device), none, notes
    from ..training.from_config import build_agent, build_reward

    overrides: list[Any] = [Override("agent.model_name", name, "CHECKPOINT_PATH")]
    overrides += [Override("agent.device", device, "--no-gpu")] if device else []
    config = load_config(config_file, overrides=overrides, needs_scenarios=False)
    config.apply_environment_variables()
    agent = build_agent(config)
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(config.located("agent.class", f"{type(agent).__name__} has no model to talk to"))
    return agent, lambda: build_reward(config), notes


def _converse(agent: MultiTurnAgent, reward: Callable[[], RewardFunction], notes: list[str], seed: int) -> None:
    from .talk import Talk
    from .terminal import Terminal

    terminal = Terminal()
    with asyncio.Runner() as runner:
        terminal.note("loading the model")
        runner.run(agent.initialize())
        talk = Talk(agent, reward, terminal, seed)
        for note in (*notes, f"seed {seed}; /help lists what can be typed"):
            terminal.note(note)
        try:
            while (line := terminal.ask()) is not None and _taken(runner, talk, line, terminal):
                pass
        finally:
            talk.close()
            runner.run(agent.aclose())
    if talk.failed and not terminal.interactive:  # whoever typed has read it
        raise typer.Exit(talk.failed)


def _taken(runner: asyncio.Runner, talk: Any, line: str, terminal: Terminal) -> bool:
    """Whether the conversation goes on after a line. Somebody who types can try again; a pipe cannot."""
    try:
        return bool(runner.run(talk.take(line)))
    except KeyboardInterrupt:
        if not terminal.interactive:
            raise
        terminal.note("stopped: your message is taken back")
    except Exception as error:  # code of one's own too: whoever types may say something else
        if not terminal.interactive:
            raise
        terminal.note(f"{describe(error)}\nyour message is taken back")
    return True


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="grpo-chat")


if __name__ == "__main__":
    main()
