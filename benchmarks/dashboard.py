"""How long the dashboard takes to show a run of a million steps.

    python benchmarks/dashboard.py [--steps 1000000]

Writes a `metrics.jsonl` with the keys of a real run, serves it to a Chromium that has never seen it, and measures from
the moment the page is asked for: until the reward curve is painted, and how much of that the page waited for answers of
the server; then how long it takes until every row is in the curves, what that costs in memory, and how long a curve
takes from then on. Wall times, as a person meets them; the processor's times are beside them. Without a Chromium, the
answers alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import Browser
from dashboard_site import MEASURED, make_long_run

PAINTED = """document.querySelector('.chart.wide canvas') ? {
    all: performance.now() / 1000,
    asked: performance.getEntriesByType('resource').filter((one) => /api.(overview|series)/.test(one.name))
        .reduce((sum, one) => sum + one.duration / 1000, 0),
} : null"""


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


def wait_until_read(port: int) -> None:
    """As a page does, which listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", "/api/events?run=long", headers={"Host": f"localhost:{port}"})
    with connection.getresponse() as stream:
        while not ((line := stream.readline()).startswith(b"data:") and json.loads(line[5:])["complete"]):
            pass
    connection.close()


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
        size = make_long_run(run, asked.steps)
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
    program = Browser.found()
    if program is not None:
        with Browser(program) as browser:
            browser.go(f"http://localhost:{port}/")  # the page and its files: what is left to wait for is the run
            browser.go("about:blank")
            begin = time.perf_counter()
            browser.go(f"http://localhost:{port}/#/run/long/learning")
            painted = browser.until(PAINTED)
        print(
            f"the reward curve is painted: {painted['all']:.2f} s, of which the page waited {painted['asked']:.2f} s "
            f"for verdict and curve (processor of the server {sum(process.cpu_times()[:2]) - used:.2f} s)"
        )
    else:
        ask(port, "overview?run=long")
        ask(port, "series?run=long&key=reward_mean&points=800")
        print(f"verdict and curve are answered: {time.perf_counter() - begin:.2f} s")
    wait_until_read(port)
    print(
        f"every row in the curves: {time.perf_counter() - begin:.1f} s "
        f"(processor {sum(process.cpu_times()[:2]) - used:.1f} s), memory {process.memory_info().rss / 1e6:.0f} MB"
    )
    for what, question in (
        ("verdict again", "overview?run=long"),
        ("reward again", "series?run=long&key=reward_mean&points=800"),
        ("twenty curves", f"series?run=long&key={'&key='.join(MEASURED[:20])}&points=300"),
        ("a part of a curve", "series?run=long&key=reward_mean&first=500000&last=500500&points=800"),
        ("one step", "step?run=long&step=7"),
    ):
        begin = time.perf_counter()
        ask(port, question)
        print(f"{what}: {time.perf_counter() - begin:.3f} s")


if __name__ == "__main__":
    main()
