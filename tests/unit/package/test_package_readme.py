"""The README tells the truth: its links lead somewhere, its commands exist, its program runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from stateset_agents.core.scenario import Scenario

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=110, check=False)


def test_every_link_and_file_that_the_readme_names_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    named = re.findall(r"(?:configs|data|docs)/[\w./-]+\.\w+", README)
    assert links
    assert named
    assert [name for name in [*links, *named] if "://" not in name and not (ROOT / name).exists()] == []


def test_every_make_command_of_the_readme_exists():
    targets = set(re.findall(r"^make ([\w-]+)", "".join(blocks("bash")), flags=re.MULTILINE))
    assert {"quickstart", "test"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_every_option_of_the_readme_is_one_of_the_commands_options(tmp_path):
    used = set(re.findall(r"--[a-z][a-z-]+", "".join(re.findall(r"^grpo-train .*$", README, flags=re.MULTILINE))))
    result = run(sys.executable, "-m", "stateset_agents.cli.train", "--help", cwd=tmp_path)
    assert {"--dry-run", "--resume"} <= used <= set(re.findall(r"--[a-z][a-z-]+", result.stdout))


def test_the_program_of_the_readme_trains(tmp_path):
    (program,) = blocks("python")
    assert "num_episodes=32" in program
    small = program.replace("smollm2-135m-instruct", "tiny").replace("num_episodes=32", "num_episodes=8")
    (tmp_path / "program.py").write_text(small)
    result = run(sys.executable, "program.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_readmes_scenario_is_one_that_can_be_scored():
    (program,) = blocks("python")
    (literal,) = re.findall(r"^scenarios = (\[.*?^\])", program, flags=re.MULTILINE | re.DOTALL)
    scenario = Scenario.from_dict(ast.literal_eval(literal)[0], where="README", default_id="x")
    assert set(scenario.topics) == set(scenario.facts)
    assert all(str(fact) in str(scenario.agent_context) for fact in scenario.facts.values())
