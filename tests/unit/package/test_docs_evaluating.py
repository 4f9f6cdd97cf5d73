"""docs/cli-reference.md says what the commands take, and docs/evaluating.md what `grpo-evaluate` does."""

import re
import sys

import pytest
import typer

from documents import ROOT, assert_is_what_it_writes, script_of

REFERENCE = (ROOT / "docs" / "cli-reference.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")


@pytest.fixture
def script():
    return script_of("make_cli_reference")


def test_the_reference_is_what_the_script_writes():
    assert_is_what_it_writes("make_cli_reference")


def test_a_reference_that_says_something_else_is_out_of_date_and_is_mended(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    file = tmp_path / "docs" / "cli-reference.md"
    file.write_text(REFERENCE.replace("`--verbose`", "`--talkative`"))
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["script"])
    assert script.main() == 0
    assert capsys.readouterr().out == "out of date: cli-reference.md\nwritten: cli-reference.md\n"
    assert file.read_text() == REFERENCE


def test_a_section_has_usage_options_and_defaults(script, monkeypatch):
    module = type(sys)("one_command")
    module.app = typer.Typer(add_completion=False)

    @module.app.command()
    def say(
        text: str = typer.Argument(help="What | to say."),
        times: int = typer.Option(3, metavar="N", help="How often."),
        loud: bool = typer.Option(False, help="Shout."),
    ) -> None:
        """Say
        something."""

    monkeypatch.setitem(sys.modules, "one_command", module)
    assert script.section("grpo-say", "one_command").splitlines() == [
        "## grpo-say",
        "",
        "Say something.",
        "",
        "```",
        "grpo-say [OPTIONS] TEXT",
        "```",
        "",
        "| option | meaning |",
        "| --- | --- |",
        "| `TEXT` | What \\| to say. |",
        "| `--times N` | How often. [default: 3] |",
        "| `--loud`, `--no-loud` | Shout. |",
    ]


def test_every_option_that_the_page_uses_is_one_of_the_command():
    own = REFERENCE.split("## grpo-evaluate\n")[1].split("\n## ")[0]
    used = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert {"--compare-with", "--html", "--samples"} <= used
    assert used <= set(re.findall(r"--[a-z][a-z-]+", own))
