"""docs/auto-adjust.md says by what rules the code moves settings."""

import sys
from pathlib import Path

import pytest

from documents import script_of
from stateset_agents.training.adjusting import RULES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "auto-adjust.md").read_text()


def test_the_page_says_what_the_rules_do(tmp_path, monkeypatch, capsys):
    """Mutation: another window or bound in `RULES`."""
    script = script_of("make_auto_adjust_page")
    assert script.filled(PAGE) == PAGE
    assert script.table().count("\n") == len(RULES) + 1
    page = tmp_path / "auto-adjust.md"
    page.write_text(PAGE.replace("1/64 of the configured one", "1/32 of the configured one"))
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["script"])
    assert script.main() == 0
    assert capsys.readouterr().out == "out of date: auto-adjust.md\nwritten: auto-adjust.md\n"
    assert page.read_text() == PAGE
    with pytest.raises(ValueError, match="the page needs one place for the table"):
        script.filled("# Rules")
