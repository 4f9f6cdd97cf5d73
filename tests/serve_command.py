"""`grpo-serve` as a process of its own, for tests.

with served(folder, checkpoint) as server:
    httpx.get(f"{server.url}/health")
    server.process.send_signal(signal.SIGTERM)
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

from stateset_agents.agents import AgentConfig, MultiTurnAgent
from stateset_agents.checkpoints import PROGRESS, write_checkpoint
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import HelpfulnessReward
from stateset_agents.training.saving import Subject

COMMAND = [sys.executable, "-m", "stateset_agents.cli.serve"]


def stub_checkpoint(folder: Path, model: str = "stub://Hello there", step: int = 7) -> Path:
    """A checkpoint without weights."""
    environment = ConversationEnvironment([{"id": "hi", "user_responses": ["Hi"]}])
    subject = Subject(MultiTurnAgent(AgentConfig(model)), environment, HelpfulnessReward(), {})
    return write_checkpoint(folder, records=subject.to_records() | {PROGRESS: {"step": step}}, replace=True)


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str
    first_line: str
    errors: Path

    def wait(self, seconds: float = 30) -> int:
        """The exit code."""
        return self.process.wait(seconds)


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@contextmanager
def served(folder: Path, checkpoint: Path, *arguments: str, ready: bool = True, **environment: str) -> Iterator[Served]:
    """A server of this checkpoint on a free port, run in this folder."""
    errors = folder / "errors.txt"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, str(checkpoint), "--port", "0", *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"no address in {line!r}; {errors.read_text()}"
        server = Served(process, found[0], line, errors)
        deadline = time.monotonic() + 60
        while ready and httpx.get(f"{server.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline, errors.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
