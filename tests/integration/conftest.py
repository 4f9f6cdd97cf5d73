"""Commands as a user runs them: real processes, real signals, real exit codes."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CONFIG: dict[str, Any] = {
    "agent": {"model_name": "tiny", "max_new_tokens": 6, "temperature": 1.0},
    "environment": {"scenarios_file": "scenarios.json", "max_turns": 3},
    "rewards": [{"type": "custom", "module": "my_rewards.vowels"}],
    # 4 steps of 2 scenarios x 2 conversations, a checkpoint after every second one
    "training": {
        "num_episodes": 16,
        "num_generations": 2,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "mixed_precision": False,
        "save_every": 8,
        "eval_every": 0,
    },
}
SCENARIOS = [
    {"id": "price", "user_responses": ["What does it cost?", "Thanks."]},
    {"id": "order", "user_responses": ["Where is my order?", "And when does it come?"]},
    {"id": "refund", "user_responses": ["I want a refund."]},
]
REWARDS = '''
async def vowels(turns, context=None):
    """A share that differs between almost any two replies."""
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)
'''


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Running:
    """A command that was started."""

    pid: int
    wait: Callable[[], Ended]
    out: Path
    err: Path

    def send(self, number: int) -> None:
        os.kill(self.pid, number)


class Launcher:
    """See `launcher.py`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, *argv: str, cwd: Path, before: str = "", **env: str) -> Running:
        self._number += 1
        out, err = (self._scratch / f"{self._number}.{name}" for name in ("out", "err"))
        request = {"argv": argv, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err), "before": before}
        pid = self._ask(request)
        return Running(pid, lambda: Ended(self._ask({"wait": pid}), out.read_text(), err.read_text()), out, err)

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


@dataclass
class Workplace:
    """A folder with a config, its scenarios and a custom reward; commands run in it."""

    path: Path
    launcher: Launcher

    def write(self, name: str = "run.json", /, **changes: Any) -> None:
        """Write the config with `training__seed=1` as `{"training": {"seed": 1}}`; None takes a key out."""
        config = copy.deepcopy(CONFIG)
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = config
            for section in sections:
                place = place.setdefault(section, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        (self.path / name).write_text(json.dumps(config, indent=1))

    def scenarios(self, scenarios: Any, name: str = "scenarios.json") -> None:
        (self.path / name).write_text(json.dumps(scenarios))

    def start(self, *arguments: str, before: str = "", command: str = "grpo-train", **env: str) -> Running:
        return self.launcher.start(command, *arguments, cwd=self.path, before=before, **env)

    def train(self, *arguments: str, config: str = "run.json", **more: Any) -> Ended:
        return self.start(config, *arguments, **more).wait()

    def metrics(self, run: str = "outputs", *, times: bool = False) -> list[dict[str, Any]]:
        """The rows of a run, without what a clock decides."""
        clocks = {"seconds", "rollout_seconds", "train_seconds", "tokens_per_second", "eval_seconds"}
        rows = [json.loads(line) for line in (self.path / run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if times or key not in clocks} for row in rows]

    def status(self, run: str = "outputs") -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.path / run / "status.json").read_text())
        return status

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Wait until something is there."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def snapshot(self, run: str = "outputs") -> dict[str, bytes]:
        """Every file of a run with its content; the lock says nothing about the run."""
        root = self.path / run
        files = (file for file in root.rglob("*") if file.is_file() and file.name != "run.lock")
        return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.fixture
def work(tmp_path: Path, launcher: Launcher) -> Workplace:
    work = Workplace(tmp_path, launcher)
    work.write()
    work.scenarios({"scenarios": SCENARIOS})
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    return work
