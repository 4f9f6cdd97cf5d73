"""docs/configuration.md says what the config code does."""

import sys

import pytest
import yaml

from documents import ROOT, assert_is_what_it_writes, script_of
from stateset_agents.config import TrainingConfig, load_config
from stateset_agents.config.fields import Section

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    return script_of("make_configuration_page")


def test_the_page_is_what_the_script_writes():
    assert_is_what_it_writes("make_configuration_page")


def test_a_page_that_says_something_else_is_out_of_date_and_is_mended(script, tmp_path, monkeypatch, capsys):
    page = tmp_path / "configuration.md"
    page.write_text(PAGE.replace("| `beta` | number ≥ 0 and ≤ 10 |", "| `beta` | number ≥ 0 and ≤ 11 |"))
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["script"])
    assert script.main() == 0
    assert capsys.readouterr().out == "out of date: configuration.md\nwritten: configuration.md\n"
    assert page.read_text() == PAGE


def test_every_hyperparameter_has_one_row_with_values_default_and_meaning():
    for name in TrainingConfig.model_fields:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |") and line.count(" | ") == 3]
        assert all(cell.strip() for cell in row.strip("|").split(" | ")), row
    assert "| `learning_rate` | number > 0 and ≤ 1 | by profile | peak learning rate of AdamW |" in PAGE
    assert "| `ratio_cap` | number > 0 and ≤ 1e6, or null | `null` | largest ratio of any token; null: no cap |" in PAGE
    assert "| `learning_rate` | `5e-6` | `1e-5` | `2e-5` | `1e-5` |" in PAGE


def test_a_key_without_a_meaning_and_a_table_without_a_place_are_errors(script):
    class Silent(Section):
        key: int = 0

    with pytest.raises(ValueError, match=r"Silent\.key has no description: say in the schema what it means"):
        script._section(Silent)
    with pytest.raises(ValueError, match="the page has places for"):
        script.filled(PAGE.replace("<!-- begin lora -->", ""))


def test_the_example_of_the_page_is_a_config(tmp_path):
    (example,) = [block.split("```")[0] for block in PAGE.split("```yaml\n")[1:]]
    (tmp_path / "run.yaml").write_text(example)
    (tmp_path / "data").symlink_to(ROOT / "data")
    config = load_config(tmp_path / "run.yaml", environ={})
    assert config.training.learning_rate == 2e-5
    assert not config.unused
    assert set(yaml.safe_load(example)) == {"agent", "environment", "rewards", "training"}
