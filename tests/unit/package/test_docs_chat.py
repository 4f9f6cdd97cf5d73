"""docs/chat.md says what the program does: its options and what can be typed."""

import re
from pathlib import Path

import typer.main

from stateset_agents.cli.chat import app
from stateset_agents.cli.talk import COMMANDS

PAGE = Path(__file__).parents[3] / "docs" / "chat.md"


def options():
    """The table of options, from the command itself."""
    lines = ["| option | meaning |", "| --- | --- |"]
    for param in typer.main.get_command(app).params:
        if param.param_type_name == "option" and param.name not in ("debug", "version"):
            value = "" if getattr(param, "is_flag", False) else f" {param.metavar}"
            lines.append(f"| `{param.opts[-1]}{value}` | {param.help} |")
    return "\n".join(lines)


def test_the_options_of_the_page_are_those_of_the_command():
    found = re.search(r"<!-- begin options -->\n\n(.*?)\n\n<!-- end options -->", PAGE.read_text(), re.DOTALL)
    assert found
    assert found[1] == options()


def test_every_command_is_on_the_page():
    rows = {cell.strip("` ") for line in PAGE.read_text().splitlines() if line.startswith("| `/") for cell in
            line.split("|")[1].split(",")}  # fmt: skip
    assert rows >= COMMANDS.keys()
