"""`grpo-serve`: serve a trained agent over HTTP.

Invariant: this module only turns arguments and `GRPO_*` variables into a `Service` and prints where it is; `--help` and
every mistake in a flag answer without loading torch or FastAPI. What can be known to fail is refused before the port is
taken.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._version import __version__
from ..core.errors import ConfigError
from .console import EXIT_CODES_HELP, DocumentedCommand, reporting_errors

if TYPE_CHECKING:
    from ..api.access import Tokens
    from ..api.app import Door
    from ..api.service import Opened, Service

logger = logging.getLogger("stateset_agents.serve")

FOLDER = "grpo-serve"
"""Made where the command is run, for the store and the log, unless flags name other places."""

_EPILOG = f"""\b
Examples:
  grpo-serve ./checkpoints/customer_service_agent
  grpo-serve outputs --port 3000 --max-conversations 10 --conversation-timeout 5
  GRPO_AUTH_TOKEN=... grpo-serve outputs --host 0.0.0.0 --port 8080 --log-conversations

Which value wins: command line, then GRPO_SERVER_HOST, GRPO_SERVER_PORT and GRPO_AUTH_TOKEN, then the default.

SIGTERM and Ctrl-C let running turns finish, up to --shutdown-timeout; a second one ends at once. SIGHUP loads the
checkpoint again, and keeps the old one if the new one is damaged or cannot say anything.

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-serve {__version__}")
        raise typer.Exit


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def serve(
    checkpoint_path: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT_PATH",
            help="A run folder, one of its checkpoints, its final_model, or a save_path.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="TEXT", envvar="GRPO_SERVER_HOST", show_envvar=False, help="Host address.")
    ] = "localhost",
    port: Annotated[
        int,
        typer.Option(
            metavar="INTEGER", min=0, max=65535, envvar="GRPO_SERVER_PORT", show_envvar=False, help="Port number."
        ),
    ] = 8000,
    max_conversations: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="Maximum concurrent conversations.")
    ] = 100,
    conversation_timeout: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="Minutes without a message after which one expires.")
    ] = 30,
    log_conversations: Annotated[
        bool, typer.Option("--log-conversations", help="Log conversations to a file, redacted (--conversation-log).")
    ] = False,
    auth_token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Require this token; several times for several tokens. Everybody on this machine can read a command "
            "line: GRPO_AUTH_TOKEN or --auth-token-file are better.",
        ),
    ] = None,
    auth_token_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Require one of the tokens in this file, one a line.")
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let other machines connect without a token.")
    ] = False,
    cors_origins: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Comma-separated origins of web pages that may connect: https://myapp.com"),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Your own config, as for grpo-train: it may name tools and agent classes."),
    ] = None,
    greeting: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="What conversations begin with; '' for nothing. [default: the config's agent.greeting]"
        ),
    ] = None,
    model_id: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Name of the model in /health and /v1. [default: the checkpoint's folder]"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=f"Where conversations are kept: a SQLite file, or postgresql://... "
            f"[default: {FOLDER}/conversations.sqlite3]",
        ),
    ] = None,
    conversation_log: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help=f"File of --log-conversations. [default: {FOLDER}/conversations.jsonl]"),
    ] = None,
    metrics_public: Annotated[
        bool, typer.Option("--metrics-public", help="Let everybody read /metrics, without a token.")
    ] = False,
    context_instructs: Annotated[
        bool,
        typer.Option(
            "--context-instructs", help="Put the context that clients give into the system prompt: they instruct it."
        ),
    ] = False,
    shutdown_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long turns may still run after SIGTERM.")
    ] = 25.0,
    turn_timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="For one reply.")] = 120.0,
    turn_wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="How long a message waits for its conversation's last turn, instead of 409."
        ),
    ] = 0.0,
    max_running: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Replies at once.")] = 32,
    max_waiting: Annotated[
        int, typer.Option(metavar="INTEGER", min=0, help="Requests that may wait for a place, instead of 429.")
    ] = 128,
    max_turns: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Messages in one conversation.")] = 200,
    max_message_chars: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="Characters of one message.")
    ] = 16_384,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="INTEGER", min=1, help="Tokens of one reply. [default: the agent's own]")
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="Bytes of one request's body.")
    ] = 1_048_576,
    no_gpu: Annotated[bool, typer.Option("--no-gpu", help="Use the CPU even where there is a GPU.")] = False,
    log_level: Annotated[str, typer.Option(metavar="TEXT", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")] = "INFO",
    debug: Annotated[bool, typer.Option("--debug", help="Log at DEBUG and print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve a trained agent via REST API."""
    with reporting_errors(debug=debug, interrupted="interrupted before the server was up."):
        _require_extra()
        from ..api.access import parse_origins
        from ..api.http_limits import HttpLimits
        from ..api.limits import ServeLimits
        from ..tracking.logging_setup import setup_logging

        redactor = setup_logging("DEBUG" if debug else log_level)
        given = _given_tokens(auth_token, auth_token_file)
        for token in given:
            redactor.add(token)
        limits = ServeLimits(
            max_conversations=max_conversations,
            idle_seconds=60.0 * conversation_timeout,
            max_running=max_running,
            max_waiting=max_waiting,
            turn_wait=turn_wait,
            turn_seconds=turn_timeout,
            max_turns=max_turns,
            message_characters=max_message_chars,
            max_new_tokens=max_new_tokens,
            context_instructs=context_instructs,
        )
        door = _door(
            host,
            given,
            parse_origins(cors_origins) if cors_origins is not None else [],
            HttpLimits(body_bytes=max_body_bytes),
            insecure=insecure_no_auth,
            metrics_public=metrics_public,
        )

        def opened() -> Opened:
            return _open(checkpoint_path, config_file, no_gpu=no_gpu)

        first = opened()  # what is wrong with the checkpoint is told before the rest is loaded
        from ..api.conversation_log import ConversationLog
        from ..api.open_store import open_store
        from ..api.page import page_routes
        from ..api.server import Server, bound_socket, url_of
        from ..api.service import Service

        logs = log_conversations or conversation_log is not None
        log_file = conversation_log or Path(FOLDER) / "conversations.jsonl"
        place = str(Path(FOLDER) / "conversations.sqlite3") if store is None else store
        service = Service(
            model=model_id or _name_of(checkpoint_path),
            opened=first,
            make_store=partial(open_store, place),
            door=door,
            limits=limits,
            greeting=greeting,
            log=ConversationLog(log_file, secrets=given) if logs else None,
            reopen=opened,
            more=(page_routes(),),
        )
        with bound_socket(host, port) as listening:
            line = _first_line(url_of(host, listening), service, place, _told(door.tokens, host))
            announce = partial(print, line, flush=True)
            asyncio.run(Server(service, shutdown_timeout).serve_until_ended(listening, announce))


def _require_extra() -> None:
    missing = [name for name in ("fastapi", "prometheus_client", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'grpo-serve needs {", ".join(missing)}; install what it needs: pip install "grpo-agent-framework[serve]"'
        )


def _given_tokens(flags: list[str] | None, file: Path | None) -> list[str]:
    from ..api.access import read_tokens

    variable = os.environ.get("GRPO_AUTH_TOKEN")
    if flags:
        logger.warning("--auth-token can be read by everybody on this machine (ps); GRPO_AUTH_TOKEN cannot")
    given = [*(flags or []), *(read_tokens(file) if file is not None else [])]
    if not given and variable == "":
        raise ConfigError("GRPO_AUTH_TOKEN is empty (a file that is not there?); give it a token, or unset it")
    return given or ([variable] if variable is not None else [])


def _door(
    host: str, given: list[str], origins: list[str], limits: object, *, insecure: bool, metrics_public: bool
) -> Door:
    from ..api.access import Tokens, is_loopback, loopback_names
    from ..api.app import Door
    from ..api.http_limits import HttpLimits
    from ..api.page import PAGE_PATHS

    assert isinstance(limits, HttpLimits)  # noqa: S101 - its class is imported late, for the type checker
    tokens = Tokens(given)
    local = is_loopback(host)
    if not tokens and not local and not insecure:
        raise ConfigError(
            f"--host {host} lets other machines connect, and there is no token that keeps them out.\n"
            "  set one: GRPO_AUTH_TOKEN=... or --auth-token-file; or stay on this machine: --host localhost;\n"
            "  or, if everybody may use this server: --insecure-no-auth"
        )
    return Door(
        tokens=tokens,
        hosts=frozenset(loopback_names(host)) if local else None,
        origins=origins,
        public=(*PAGE_PATHS, *(("/metrics",) if metrics_public else ())),
        limits=limits,
    )


def _open(path: Path, config_file: Path | None, *, no_gpu: bool) -> Opened:
    from ..api.service import Opened
    from ..training.trained import open_trained

    trained = open_trained(path, config_file=config_file, device="cpu" if no_gpu else None)
    return Opened(trained.agent, trained.step, trained.greeting)


def _name_of(path: Path) -> str:
    """The folder's name; of a final model or a checkpoint of a run, the run's."""
    folder = path.resolve()
    if folder.name == "final_model":
        folder = folder.parent
    elif folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        folder = folder.parent.parent
    return folder.name or "agent"


def _first_line(url: str, service: Service, store: str, who: str) -> str:
    at = "" if service.opened.version is None else f", step {service.opened.version}"
    kept = "PostgreSQL" if "://" in store else store  # an address may hold a password
    return f"grpo-serve {__version__}: {url} serves {service.model}{at}; {who}; conversations are kept in {kept}"


def _told(tokens: Tokens, host: str) -> str:
    from ..api.access import is_loopback

    if tokens:
        return "a token is needed"
    if is_loopback(host):
        return "no token is needed, and only this machine can connect"
    return "WITHOUT A TOKEN: every machine that reaches this one can use it"


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="grpo-serve")


if __name__ == "__main__":
    main()
