"""Write the tables of options in docs/: `python scripts/make_option_tables.py`.

Invariant: what a table says is what the command takes. Each stands between `<!-- begin options COMMAND -->` and
`<!-- end options COMMAND -->` on some page of docs/ and is made from the command alone; every command of pyproject.toml
has one. `--check` says whether the pages are up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main

ROOT = Path(__file__).resolve().parent.parent
_PLACE = re.compile(r"(<!-- begin options (\S+) -->\n).*?(<!-- end options \2 -->)", flags=re.DOTALL)


def commands() -> dict[str, str]:
    """The module of each command."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return {name: address.partition(":")[0] for name, address in scripts.items()}


def table(module: str) -> str:
    """A row for each argument and option of a command.

    Raises:
        ValueError: one of them has no help.
    """
    command = typer.main.get_command(import_module(module).app)
    rows = [_row(one) for one in command.params if "--help" not in one.opts]
    return "\n".join(["| option | meaning |", "| --- | --- |", *rows])


def _row(option: Any) -> str:
    if not option.help:
        raise ValueError(f"{option.name} has no help: say in the command what it means")
    is_option = option.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    given = "" if not is_option or option.is_flag else f" `{option.metavar or option.name.upper()}`"
    default = option.default() if callable(option.default) else option.default
    shown = default is not None and default is not False and "[default:" not in option.help
    ended = f" [default: {names.split(', ')[0].strip('`') if default is True else default}]" if shown else ""
    label = f"{names}{given}" if is_option else f"`{option.metavar}`"
    return f"| {label} | {_cell(option.help + ended)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def filled(page: str) -> str:
    """A page with its tables as they should be.

    Raises:
        ValueError: it has a place for a command that does not exist.
    """
    known = commands()

    def made(found: re.Match[str]) -> str:
        if found[2] not in known:
            raise ValueError(f"there is no command {found[2]}; there are: {', '.join(known)}")
        return f"{found[1]}\n{table(known[found[2]])}\n\n{found[3]}"

    return _PLACE.sub(made, page)


def main() -> int:
    """Write the pages, or with `--check` compare them; 0 when they are (or were) up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page differs")
    check = parser.parse_args().check
    stale, placed = False, set()
    for file in sorted((ROOT / "docs").glob("*.md")):
        page = file.read_text(encoding="utf-8")
        placed |= {name for _, name, _ in _PLACE.findall(page)}
        if (new := filled(page)) != page:
            stale = True
            if not check:
                file.write_text(new, encoding="utf-8")
            print(f"{'out of date' if check else 'written'}: {file.name}")
    for name in [name for name in commands() if name not in placed]:
        print(f"{name} has no table: put <!-- begin options {name} --> and <!-- end options {name} --> into its page")
        stale = check = True
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
