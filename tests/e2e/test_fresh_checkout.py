"""What the documents' commands train, they train in a checkout in which nothing was done before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="only a checkout can be checked out"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["customer_service", "tutoring", "my_agent", "order_service"])
def test_a_config_trains_in_a_fresh_checkout(checkout, name):
    """Mutation: a file that a config names is not committed."""
    shutil.rmtree(checkout / "outputs", ignore_errors=True)
    command = [sys.executable, "-m", "stateset_agents.cli.train", f"configs/{name}.yaml"]
    arguments = ["--num-episodes", "16", "--model-name", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    ended = subprocess.run(
        [*command, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "GRPO Agent Framework - Training Complete" in ended.stdout
    config = (checkout / "outputs" / "config.yaml").read_text()
    assert str(checkout / "data") in config or "scenarios:" in config  # its own files, not this checkout's
    assert str(ROOT) not in config
    ignored = subprocess.run(["git", "status", "--short"], cwd=checkout, capture_output=True, text=True, check=True)
    assert ignored.stdout == ""  # what a run writes is no change of the project
