"""What docs/rewards.md shows is what there is, and runs."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from stateset_agents.config import load_config
from stateset_agents.core.dotted import import_dotted
from stateset_agents.core.reward import KINDS, as_reward
from stateset_agents.training.from_config import build_reward

DOCS = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_rewards.py").write_text("def politeness_reward(turns):\n    return 0.5\n", encoding="utf-8")
    search = list(sys.path)
    yield tmp_path
    sys.path[:] = search
    sys.modules.pop("my_rewards", None)


@pytest.mark.parametrize("text", YAML)
def test_each_config_builds(folder, text):
    head = "agent: {model_name: tiny}\nenvironment: {scenarios: [{id: a, user_responses: [Hi]}]}\n"
    (folder / "run.yaml").write_text(head + text, encoding="utf-8")
    config = load_config(folder / "run.yaml")
    reward = build_reward(config)
    assert len(getattr(reward, "rewards", [reward])) == len(config.rewards)


@pytest.mark.parametrize("text", PYTHON)
def test_each_program_runs(tmp_path, text):
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "program.py"))
    as_reward(names.get("reward", names.get("named")))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.address])
def test_every_reward_says_what_it_cannot_see(name):
    (row,) = [line.split("|") for line in DOCS.splitlines() if line.startswith(f"| `{name}` |")]
    found = import_dotted(f"stateset_agents.{KINDS[name].address}")
    assert row[2].strip() == f"`{found.__name__}`"
    assert len(row[6].split()) >= 2
    told = " ".join(found.__doc__.split())
    assert re.search("cannot see|nothing else|not meaning|not content|not whether|fool", told)


def test_every_plain_reward_has_a_row_an_example_and_the_range_of_its_class():
    """Those of higher rooms may have a page of their own."""
    rows = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in DOCS.splitlines() if "|" in line)}
    shown = "\n".join(YAML)
    for name, kind in KINDS.items():
        if kind.address.startswith("core."):
            assert f"type: {name}" in shown
            found = import_dotted(f"stateset_agents.{kind.address}")
            assert found.__name__ in rows[name][2]
            assert rows[name][4].strip() in {0.0: ["-1 to 0"], 1.0: ["0 to 1", "0 or 1"]}[found.maximum]
