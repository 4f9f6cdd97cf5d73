"""How long the dashboard takes to show a run of a million steps.

    python benchmarks/dashboard.py [--steps 1000000]

Writes a `metrics.jsonl` with the columns of a real run, serves it, and measures from the first request of a page that
has just been opened: the answers that the first paint needs (the page's files, the verdict, the reward curve), one
after the other; then how long it takes until every row is in the curves, what that costs in memory, and how long a
curve takes from then on. Wall times, as a person meets them; the processor's times are beside them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from stateset_agents.dashboard.page_files import page_files
from stateset_agents.tracking.run_folder import RunFolder

COLUMNS = (
    "episodes loss kl entropy grad_norm clip_fraction ratio_mean mismatch_mean mismatch_size mismatch_max "
    "trained_tokens forwarded_tokens unique_tokens learning_rate reward_std reward_min reward_max reward_diversity "
    "zero_variance_share success_rate length_mean step_episodes failed unscored truncated edited_turns replies "
    "cut_replies reward/helpfulness reward/correctness sampled_tokens tokens_per_second rollout_seconds train_seconds "
    "seconds"
).split()


def write_run(path: Path, steps: int) -> int:
    """A run with that many steps; returns the bytes of its metrics."""
    with RunFolder.create(path, config_yaml="training:\n  seed: 1\n") as folder:
        folder.log_metrics({"step": 0})
        folder.set_status("finished")
    source = random.Random(0)
    rest = ", ".join(f'"{name}": {source.random():.12f}' for name in COLUMNS)
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            file.write(f'{{"step": {step}, "reward_mean": {0.5 * step / steps + source.gauss(0, 0.1):.12f}, {rest}}}\n')
    return (path / "metrics.jsonl").stat().st_size


def get(port: int, path: str) -> bytes:
    """The body of a good answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": f"localhost:{port}"})
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == 200, body
    connection.close()
    return body


def ask(port: int, question: str) -> Any:
    """An answer of the run."""
    return json.loads(get(port, f"/api/{question}"))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "long"
        size = write_run(run, asked.steps)
        print(f"{asked.steps:,} steps, {size / 1e6:.0f} MB")
        port = free_port()
        command = [sys.executable, "-m", "stateset_agents.cli.dashboard", str(run), "--port", str(port)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        ) as served:
            assert served.stdout is not None
            served.stdout.readline()
            process = psutil.Process(served.pid)
            try:
                measure(port, process)
            finally:
                served.terminate()


def measure(port: int, process: psutil.Process) -> None:
    """Print what a page that has just been opened meets."""
    begin, used = time.perf_counter(), sum(process.cpu_times()[:2])
    for name in page_files():
        get(port, f"/{name}")
    overview = ask(port, "overview?run=long")
    series = ask(port, "series?run=long&key=reward_mean&points=800")
    paint = time.perf_counter() - begin
    print(
        f"answers of the first paint: {paint:.2f} s (processor {sum(process.cpu_times()[:2]) - used:.2f} s), "
        f"{len(series['step'])} points, all rows: {series['complete']}, verdict: {overview['learning']['verdict']}"
    )
    while not ask(port, "overview?run=long")["complete"]:
        pass
    print(
        f"every row in the curves: {time.perf_counter() - begin:.1f} s "
        f"(processor {sum(process.cpu_times()[:2]) - used:.1f} s), memory {process.memory_info().rss / 1e6:.0f} MB"
    )
    for what, question in (
        ("verdict again", "overview?run=long"),
        ("reward again", "series?run=long&key=reward_mean&points=800"),
        ("twenty curves", f"series?run=long&key={'&key='.join(COLUMNS[:20])}&points=300"),
        ("a part of a curve", "series?run=long&key=reward_mean&first=500000&last=500500&points=800"),
        ("one step", "step?run=long&step=777777" if overview["rows"] > 777777 else "step?run=long&step=7"),
    ):
        begin = time.perf_counter()
        ask(port, question)
        print(f"{what}: {time.perf_counter() - begin:.3f} s")


if __name__ == "__main__":
    main()
