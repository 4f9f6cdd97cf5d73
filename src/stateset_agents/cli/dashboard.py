"""`grpo-dashboard`: look at runs.

Invariant: this module turns arguments into one call. `--help` loads no server.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from .._version import __version__
from ..core.errors import ConfigError
from .console import EXIT_CODES_HELP, DocumentedCommand, reporting_errors

_EPILOG = f"""\b
Examples:
  grpo-dashboard outputs
  grpo-dashboard runs --port 0
  grpo-dashboard runs/first --export page

It reads and changes nothing, while a run goes on or after it. A folder that holds several runs shows them side by side.

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"grpo-dashboard {__version__}")
        raise typer.Exit


@app.command(cls=DocumentedCommand, epilog=_EPILOG)
def dashboard(
    run_folder: Annotated[
        Path,
        typer.Argument(metavar="RUN_FOLDER", help="The folder of a run, or of several runs.", show_default=False),
    ],
    host: Annotated[str, typer.Option(metavar="TEXT", help="Address to listen on.")] = "localhost",
    port: Annotated[
        int, typer.Option(metavar="INTEGER", min=0, max=65535, help="Port to listen on; 0: one that is free.")
    ] = 7070,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also answer browsers that call this server by NAME; may be given again.",
            show_default=False,
        ),
    ] = None,
    insecure_no_auth: Annotated[
        bool,
        typer.Option("--insecure-no-auth", help="Let --host be an address that other machines reach: all may look."),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the page as a folder that opens from disk, and serve nothing."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Show runs in a browser: are they running, do they learn, what is said in them."""
    with reporting_errors(debug=debug, interrupted="ended."):
        if export is not None:
            from ..dashboard.export import write_export

            print(write_export(run_folder, export))
            return
        missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f'the dashboard needs {" and ".join(missing)}: pip install "grpo-agent-framework[serve]"\n'
                "  --export FOLDER writes the page as files and needs neither"
            )
        from ..dashboard.serving import serve

        serve(run_folder, host=host, port=port, allowed=allowed_host or (), unguarded=insecure_no_auth, say=print)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="grpo-dashboard")


if __name__ == "__main__":
    main()
