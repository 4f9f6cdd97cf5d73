"""The tables of options are those of the commands, and docs/evaluating.md says what `grpo-evaluate` does."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "make_option_tables.py"
PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("make_option_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_a_table_and_it_is_what_the_script_writes():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_table_that_is_out_of_date_or_missing_is_told_and_mended(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project.scripts]\ngrpo-evaluate = "stateset_agents.cli.evaluate:main"\n'
        'grpo-train = "stateset_agents.cli.train:main"\n'
    )
    page = tmp_path / "docs" / "evaluating.md"
    page.write_text(PAGE.replace("`--verbose`", "`--talkative`"))
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    assert capsys.readouterr().out == (
        "out of date: evaluating.md\n"
        "grpo-train has no table: put <!-- begin options grpo-train --> and <!-- end options grpo-train --> into its "
        "page\n"
    )
    monkeypatch.setattr(sys, "argv", ["script"])
    script.main()
    assert page.read_text() == PAGE
    with pytest.raises(ValueError, match="there is no command grpo-evaluat; there are: grpo-evaluate, grpo-train"):
        script.filled(PAGE.replace("options grpo-evaluate", "options grpo-evaluat"))


def test_every_option_that_the_page_uses_is_one_of_the_command():
    table = PAGE.split("<!-- begin options")[1]
    used = set(re.findall(r"--[a-z][a-z-]+", PAGE.split("## Options")[0]))
    assert {"--compare-with", "--html", "--samples"} <= used
    assert used - {"--check"} <= set(re.findall(r"--[a-z][a-z-]+", table))
