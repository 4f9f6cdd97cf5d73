"""Commands as a user runs them: real processes, real signals, real exit codes."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stateset_agents.tracking.performance import CLOCKED

CLOCKS = {*CLOCKED, "timestamp", "created"}
"""What a clock decides, in every file of a run."""
OF_THE_FOLDER = {"status.json", "manifest.json", "config_origins.json"}
"""Files that tell where and when a run was, and not what it came to."""
KILLED_AFTER_3 = """
import os, signal
from stateset_agents.tracking.run_folder import RunFolder
log = RunFolder.log_metrics
def logged(self, row):
    log(self, row)
    if row["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
RunFolder.log_metrics = logged
"""
"""What a command runs first to be killed when its third step is logged."""
ANOTHER_MODEL = """
from stateset_agents.models import tiny
made = tiny.tiny_config
def wider():
    config = made()
    config.intermediate_size = 96
    return config
tiny.tiny_config = wider
"""
"""What a command runs first so that the tiny model has other weights than checkpoints of it."""


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


@dataclass
class Workplace:
    """A folder with a config, its scenarios and a custom reward; commands run in it."""

    path: Path
    launcher: Launcher
    config: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str = "run.json", /, **changes: Any) -> None:
        """Write the config with `training__seed=1` as `{"training": {"seed": 1}}`; None takes a key out."""
        config = copy.deepcopy(self.config)
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
        rows = [json.loads(line) for line in (self.path / run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if times or key not in CLOCKS} for row in rows]

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

    def result(self, run: str = "outputs") -> dict[str, bytes]:
        """What a run came to, by file, without what a clock or the folder's name decides: to compare to the byte."""
        root = self.path / run
        found = {}
        for file in sorted(root.rglob("*")):
            name, text = str(file.relative_to(root)), b"" if file.is_dir() else file.read_bytes()
            if name == "report.txt":
                lines = text.replace(run.encode(), b"RUN").splitlines(keepends=True)
                found[name] = b"".join(line for line in lines if not line.startswith((b"Time ", b"Memory ")))
            elif file.suffix == ".safetensors":
                found[name] = text
            elif file.suffix in (".json", ".jsonl") and file.name not in OF_THE_FOLDER:
                rows = text.splitlines() if file.suffix == ".jsonl" else [text]
                found[name] = json.dumps([json.loads(row, object_hook=_without_clocks) for row in rows]).encode()
        return found


def _without_clocks(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in CLOCKS}
