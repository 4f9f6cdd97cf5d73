"""Write docs/cli-reference.md: `python scripts/make_cli_reference.py`.

Invariant: what the page says is what the commands take: each command of pyproject.toml has a section, made from the
command alone. `--check` says whether the page is up to date, and an option without help is an error.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main
from made_page import written

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Commands

Every command with its options, made from the code (`python scripts/make_cli_reference.py`). `COMMAND --help` says the
same, with examples. Exit codes are those of all commands: 0 done; 2 config or usage; 3 data, model or disk; 4 stopped,
because code of yours fails or there is nothing to learn; 70 internal error; 75 interrupted.
"""


def page() -> str:
    """The page as it should be."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return "\n".join([HEAD, *(section(name, scripts[name].partition(":")[0]) for name in sorted(scripts))])


def section(name: str, module: str) -> str:
    """What a command does, how it is called, and a row for each argument and option.

    Raises:
        ValueError: one of them has no help.
    """
    command = typer.main.get_command(import_module(module).app)
    arguments = [_argument(one) for one in command.params if one.param_type_name == "argument"]
    usage = " ".join([name, "[OPTIONS]", *arguments])
    rows = "\n".join(["| option | meaning |", "| --- | --- |", *_rows(command)])
    return f"## {name}\n\n{' '.join((command.help or '').split())}\n\n```\n{usage}\n```\n\n{rows}\n"


def _argument(argument: Any) -> str:
    shown: str = argument.metavar or argument.name.upper()
    return shown if argument.required else f"[{shown}]" + ("..." if argument.nargs == -1 else "")


def _rows(command: Any) -> Iterator[str]:
    for one in command.params:
        if "--help" in one.opts:
            continue
        if not one.help:
            raise ValueError(f"{one.name} has no help: say in the command what it means")
        if one.param_type_name == "argument":
            label = f"`{one.metavar or one.name.upper()}`"
        else:
            value = "" if one.is_flag else f" {one.metavar or one.name.upper()}"
            label = ", ".join(f"`{name}{value}`" for name in (*one.opts, *one.secondary_opts))
        meaning = " ".join(f"{one.help}{_default(one)}".split()).replace("|", "\\|")
        yield f"| {label} | {meaning} |"


def _default(one: Any) -> str:
    """The default, where the help does not say it itself and there is one."""
    default = one.default() if callable(one.default) else one.default
    if default is None or default is False or one.required or "[default:" in one.help:
        return ""
    return f" [default: {one.opts[0] if default is True else default}]"


def main() -> int:
    """Write the page, or with `--check` compare it; 0 when it is (or was) up to date."""
    return written(ROOT / "docs" / "cli-reference.md", page(), __doc__)


if __name__ == "__main__":
    sys.exit(main())
