"""docs/dashboard.md says what the program does, and shows pictures that are there."""

import re
from pathlib import Path

import typer.main

from stateset_agents.cli.dashboard import app
from stateset_agents.dashboard import answers, changes, export, metrics, runs
from stateset_agents.tracking import learning
from stateset_agents.training import credit

PAGE = Path(__file__).parents[3] / "docs" / "dashboard.md"


def options():
    """The table of options, from the command itself."""
    lines = ["| option | meaning |", "| --- | --- |"]
    for param in typer.main.get_command(app).params:
        if param.param_type_name == "option" and param.name not in ("debug", "version"):
            value = "" if getattr(param, "is_flag", False) else f" {param.metavar}"
            default = f" [default: {param.default}]" if param.default and value else ""
            lines.append(f"| `{param.opts[-1]}{value}` | {param.help}{default} |")
    return "\n".join(lines)


def test_the_options_of_the_page_are_those_of_the_command():
    found = re.search(r"<!-- begin options -->\n\n(.*?)\n\n<!-- end options -->", PAGE.read_text(), re.DOTALL)
    assert found
    assert found[1] == options()


def test_the_numbers_of_the_page_are_those_of_the_code():
    text = " ".join(PAGE.read_text().split())
    for sentence in (
        f"fewer than {learning.FEWEST_STEPS} steps with a reward",
        f"a sample of {metrics.SAMPLED_ROWS} steps",
        f"A run of more than {answers.JUDGED_ROWS} steps",
        f"up to {export.MOST_GROUPS} groups",
        f"up to {credit.SPELLED_TOKENS} tokens of a conversation",
        f"up to {changes.MOST_LISTENERS} open pages",
        "a heartbeat in the last two minutes, or within three times what the last step took",
    ):
        assert sentence in text
    assert runs.QUIET_SECONDS == 120
    assert credit.SPELLED_STEPS == 100


def test_the_pictures_are_there_and_small():
    names = re.findall(r"!\[[^]]+\]\((images/[\w-]+\.png)\)", PAGE.read_text())
    assert len(names) == 8
    for name in names:
        assert 5_000 < (PAGE.parent / name).stat().st_size < 200_000
