"""What docs/rewards-learned.md shows runs, with the tiny model in the place of a real one."""

import importlib.metadata
import json
import random
import re
import runpy
from pathlib import Path

import pytest

from stateset_agents.config import load_config
from stateset_agents.models import EMBEDDED
from stateset_agents.models.sentences import WHEEL
from stateset_agents.training.from_config import build_reward

DOCS = (Path(__file__).parents[3] / "docs" / "rewards-learned.md").read_text(encoding="utf-8")
LEARN, COMPARE = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
(PROGRAM,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
(PAIR,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
HEAD = "agent: {model_name: tiny}\nenvironment: {scenarios: [{id: a, user_responses: [Hi]}]}\n"


def config_of(folder, text):
    (folder / "run.yaml").write_text(HEAD + text, encoding="utf-8")
    return load_config(folder / "run.yaml")


async def test_the_program_fits_a_reward_and_the_config_names_it(tmp_path, monkeypatch, capsys):
    rng = random.Random(2)
    lines = []
    for number in range(60):
        told = " ".join(rng.choice(["order", "month", "price", "item"]) for _ in range(6))
        pair = json.loads(PAIR) | {"chosen": f"{told} refund refund {number}", "rejected": f"{told} and you {number}"}
        lines.append(json.dumps(pair) + "\n")
    (tmp_path / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM.replace(EMBEDDED, "tiny"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("program.py")
    assert re.match(r"orders [01]\.\d{3} of 12 held-out pairs right \(95 % interval", capsys.readouterr().out)
    reward = build_reward(config_of(tmp_path, LEARN))
    assert reward.rewards["learned"].folder == str(tmp_path / "my_reward")


def test_the_comparison_builds_where_its_model_is_installed(tmp_path):
    (tmp_path / "ground_truth.json").write_text('{"ground_truth": {"a": "It is free."}}', encoding="utf-8")
    config = config_of(tmp_path, COMPARE)
    try:
        importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{WHEEL} is not installed")
    assert list(build_reward(config).rewards) == ["correctness", "semantic_similarity"]
