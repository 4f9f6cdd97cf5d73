"""The launch script hands every documented variable on to the example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stateset_agents.training.trl.variables import VARIABLES

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "scripts" / "train_trl_grpo.sh"


def launched(folder: Path, **variables: str) -> tuple[dict[str, str], str]:
    """What the interpreter that the script starts finds in its environment, and what it is told to run."""
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "RUNS $1"\nenv\n')
    python.chmod(0o755)
    shell = {"PATH": os.environ["PATH"], "PYTHON": str(python), **variables}
    ended = subprocess.run([str(SCRIPT)], cwd=folder, env=shell, capture_output=True, text=True, check=True)
    runs, environment = ended.stdout.partition("RUNS ")[2].split("\n", 1)
    return dict(line.split("=", 1) for line in environment.splitlines() if "=" in line), runs


def test_every_variable_reaches_the_example(tmp_path):
    given = {name: f"value-of-{name}" for name in (*VARIABLES, "QUICK_MODE", "WANDB_API_KEY")}
    found, runs = launched(tmp_path, **given)
    assert {name: found.get(name) for name in given} == given
    assert Path(runs) == ROOT / "examples" / "train_with_trl_grpo.py"


def test_without_an_output_dir_each_run_gets_a_folder_of_its_own(tmp_path):
    found, _ = launched(tmp_path)
    assert re.fullmatch(r"\./outputs/trl_grpo_training/\d{8}_\d{6}", found["OUTPUT_DIR"])
    assert found["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_the_script_names_every_variable_and_no_secret_is_shown(tmp_path):
    text = SCRIPT.read_text()
    assert all(name in text for name in (*VARIABLES, "QUICK_MODE", "WANDB_API_KEY"))
    ended = subprocess.run(
        [str(SCRIPT)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHON": "true", "WANDB_API_KEY": "hush-hush", "LORA_R": "8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "LORA_R=8" in ended.stdout
    assert "hush-hush" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_quick_mode_trains_on_a_cpu_in_under_a_minute(tmp_path):
    environment = {**os.environ, "QUICK_MODE": "true", "PYTHON": sys.executable}
    ended = subprocess.run(
        [str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "assistant: " in ended.stdout
    (log,) = tmp_path.glob("outputs/trl_grpo_training/*/training_*.log")
    assert "step 4/4" in log.read_text()
