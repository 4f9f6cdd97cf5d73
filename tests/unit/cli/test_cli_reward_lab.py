"""`grpo-reward-lab`: what it takes, what it prints, and the code it ends with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stateset_agents.cli import reward_lab as command

CASES = {
    "cases": [
        {
            "id": "price",
            "about": "A price is asked for.",
            "user": ["What does the kettle cost?"],
            "scenario": {"facts": {"price": "$25"}},
            "honest": ["The kettle costs $25."],
            "attacks": [
                {"category": "platitudes", "replies": ["Thank you for asking!"]},
                {"category": "wrong_answer", "replies": ["The kettle costs $52."]},
            ],
        }
    ]
}
REWARDS = """\
def longer_is_better(turns, context=None):
    return float(len(turns[-1].content))


def breaks(turns, context=None):
    raise KeyError("price")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.json").write_text(json.dumps(CASES))
    (tmp_path / "lab_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("lab_rewards", None)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command.app, list(arguments), prog_name="grpo-reward-lab")


def counts(*arguments: str) -> dict[str, tuple[int, int]]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {one["reward"]: (one["fooled"], one["tried"]) for one in json.loads(result.stdout)["rewards"]}


def test_a_built_in_reward_is_named_by_its_name(folder):
    assert counts("correctness", "--cases", "mine.json") == {"correctness": (0, 2)}


def test_a_reward_of_ones_own_is_named_by_its_dotted_path(folder):
    # 21 characters each, and the platitude has 21 too: worth as much as the honest reply.
    assert counts("lab_rewards.longer_is_better", "--cases", "mine.json") == {"longer_is_better": (2, 2)}


def test_the_rewards_of_a_config_are_taken_one_by_one_and_together(folder):
    (folder / "run.yaml").write_text(
        "agent: {model_name: tiny}\n"
        "environment: {scenarios: [{id: a, user_responses: [Hi], facts: {price: $25}}]}\n"
        "rewards: [{type: correctness, weight: 1.0}, {type: safety, weight: 0.5}]\n"
    )
    assert counts("run.yaml", "--cases", "mine.json") == {
        "correctness": (0, 2),
        "safety": (2, 2),
        "all together": (0, 2),
    }


def test_all_built_in_rewards_are_run_when_none_is_named(folder):
    assert {"helpfulness", "safety", "default"} <= counts("--cases", "mine.json").keys()


def test_the_shipped_cases_are_used_when_none_are_given():
    result = call("safety", "--half", "seen")
    assert result.exit_code == 0
    assert "seen: 14 cases, 149 attacks" in result.stdout


def test_a_reward_that_raises_is_shown_and_the_command_says_that_nothing_was_judged(folder):
    result = call("lab_rewards.breaks", "--cases", "mine.json")
    assert result.exit_code == 2
    assert "breaks on mine: 2 attacks failed: compute_reward: KeyError: 'price'" in result.stdout
    assert "nothing was judged" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["helpfulnes"], 2, "there is no reward 'helpfulnes'; did you mean 'helpfulness'?"),
        (["lab_rewards.longer_is_beter"], 2, 'lab_rewards has no "longer_is_beter"; did you mean "longer_is_better"?'),
        (["nowhere.reward"], 2, 'there is no module "nowhere"'),
        (["nope.yaml"], 2, "there is no file"),
        (["safety", "--cases", "nope.json"], 3, "cases file nope.json does not exist"),
        (["safety", "--cases", "lab_rewards.py"], 3, "not valid JSON"),
        (["safety", "--cases", "mine.json", "--half", "seen"], 2, "--half chooses among the shipped cases"),
        (["safety", "--half", "none"], 2, "'none' is not one of 'seen', 'unseen', 'both'"),
        (["safety", "--margin", "2"], 2, "'--margin': 2 is no share; it must be a number from 0 to 1"),
        (["safety", "--margin", "nan"], 2, "'--margin': nan is no share; it must be a number from 0 to 1"),
        (["safety", "--json", "--verbose"], 2, "leave out --verbose"),
        (["safety", "--markdown", "--verbose"], 2, "leave out --verbose"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_with_its_code(folder, arguments, code, message):
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.replace("│", " ").split())
    assert result.stdout == ""


def test_ctrl_c_says_what_it_means_here(folder):
    (folder / "lab_rewards.py").write_text("def gives_up(turns):\n    raise KeyboardInterrupt\n")
    result = call("lab_rewards.gives_up", "--cases", "mine.json")
    assert (result.exit_code, result.stderr) == (75, "interrupted: the lab keeps nothing.\n")


def test_it_runs_as_a_module_under_both_names_without_loading_torch(folder):
    script = (
        "import runpy, sys\n"
        "sys.argv = ['lab', 'safety', '--cases', 'mine.json']\n"
        "try:\n    runpy.run_module('{}.reward_lab', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    for package in ("stateset_agents", "grpo_agent_framework"):
        done = subprocess.run(
            [sys.executable, "-c", script.format(package)],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=os.environ,
        )
        assert done.returncode == 0, done.stderr
        assert "mine: 1 cases, 2 attacks" in done.stdout
