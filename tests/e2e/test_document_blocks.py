"""Every program of the user guide runs from an installed wheel, in an empty folder, as a reader finds it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "usage-guide.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)

WORDS = [
    "MultiTurnAgent.from_model(",
    "async def quick_example():",
    "memory_window=10",
    "class CustomAgent(MultiTurnAgent):",
    'persona="You are a user seeking technical support."',
    "class CustomEnvironment(Environment):",
    "composite = CompositeReward([",
    "class CustomReward(RewardFunction):",
    "@reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE)",
    'await train(agent, environment, profile="conservative")',
    "config_overrides = {",
    "monitor = DiagnosticsMonitor()",
    "load_agent_from_checkpoint(",
]
"""A line of each program, in order."""


def test_the_guide_has_the_documented_programs():
    assert len(BLOCKS) == len(WORDS)
    for block, words in zip(BLOCKS, WORDS, strict=True):
        assert words in block


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel; all other packages are those of this environment."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    # As a plain line of a .pth file, the folder is searched after the wheel, and its own .pth files (the editable
    # install) are not read.
    (site,) = (place / "env").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COVERAGE_PROCESS_START")
    }
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def run_blocks(python: Path, folder: Path, model: str, longest: int) -> dict:
    empty = folder / "empty"
    empty.mkdir()
    (folder / "blocks.json").write_text(json.dumps(BLOCKS))
    script = str(Path(__file__).parent / "run_blocks.py")
    ended = run(python, script, str(folder / "blocks.json"), model, str(longest), cwd=empty)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    assert ended.stdout.count("\nAgent: ") == 2
    assert ended.stdout.count("GRPO Agent Framework - Training Complete\n") == 8
    assert "no reward was given: using the default" in ended.stderr
    assert "Agent saved to: ./checkpoints/my_agent\n" in ended.stdout
    assert [file.name for file in empty.iterdir()] == ["checkpoints"]
    (line,) = re.findall(r"^RESULT (.*)$", ended.stdout, flags=re.MULTILINE)
    return json.loads(line)


EXPECTED = [
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "conservative", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "aggressive", 32],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 32],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["CustomAgent", "Environment3", "balanced", 16],
    ["CustomAgent", "ConversationEnvironment", "balanced", 16],
]


def test_every_program_of_the_guide_runs_from_the_wheel_with_a_tiny_model(python, tmp_path):
    result = run_blocks(python, tmp_path, "tiny", 16)
    assert Path(result["package"]).is_relative_to(python.parents[1])
    assert result["trained"] == EXPECTED
    assert result["health"] in ("HEALTHY", "WARNING")
    assert result["loaded"] == "MultiTurnAgent"


def test_the_installed_command_trains_a_config_that_comes_with_it(python, tmp_path):
    arguments = ["configs/my_agent.yaml", "--model-name", "tiny", "--num-episodes", "16"]
    ended = run(python, "-m", "stateset_agents.cli.train", *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "GRPO Agent Framework - Training Complete" in ended.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["outputs"]


TRL_GUIDE = (Path(__file__).parent / "trl-training-guide.md").read_text()
TRL_BLOCKS = re.findall(r"^```python\n(.*?)^```", TRL_GUIDE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is bridged to")
@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2-135m-instruct", marks=pytest.mark.slow)])
def test_every_program_of_the_trl_guide_runs_from_the_wheel(python, tmp_path, model):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "blocks.json").write_text(json.dumps(TRL_BLOCKS))
    script = str(Path(__file__).parent / "run_trl_blocks.py")
    ended = run(python, script, str(tmp_path / "blocks.json"), model, cwd=empty)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    (line,) = re.findall(r"^RESULT (.*)$", ended.stdout, flags=re.MULTILINE)
    result = json.loads(line)
    assert Path(result["package"]).is_relative_to(python.parents[1])
    assert len(result["configs"]) == 8
    assert result["configs"][-1] == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert result["response"].startswith("User: Where is my order?\nAssistant:")
    for saved in ("final_model", "my_agent/final_model", "custom_training/final_model"):
        assert (empty / "outputs" / saved / "model.safetensors").is_file()
    assert len(list(empty.glob("outputs/**/training_*.log"))) == 3
    assert ended.stdout.count("GRPO Agent Framework - Training Complete\n") == 3


@pytest.mark.slow
def test_every_program_of_the_guide_runs_from_the_wheel_with_a_real_model(python, tmp_path):
    result = run_blocks(python, tmp_path, "smollm2-135m-instruct", 24)
    assert result["trained"] == EXPECTED
