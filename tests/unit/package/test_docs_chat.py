"""docs/chat.md names what can be typed."""

from pathlib import Path

from stateset_agents.cli.talk import COMMANDS

PAGE = (Path(__file__).parents[3] / "docs" / "chat.md").read_text(encoding="utf-8")


def test_every_command_is_on_the_page():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| ")]
    named = {cell.strip("` ") for row in rows for cell in row.split(",")}
    assert named >= COMMANDS.keys()
