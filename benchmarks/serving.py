"""What `grpo-serve` does under load on this machine's loopback, with the tiny model, beside `transformers serve`.

Five measurements, each with servers of its own that are stopped after it:

* `talk`: many conversations at once, several turns each: errors, time for a turn, tokens a second;
* `overload`: ten times as many requests at once as there are places for, twice: statuses, and the server's resident
  memory before, at its highest in each round, and after;
* `overhead`: a model that is no model, one client: what the server itself takes for a turn, with and without a client
  that reads a stream, in time and in CPU time;
* `beside`: chat completions of the same weights, lengths and number of clients from `grpo-serve` and from
  `transformers serve`, one after the other, then in the other order.

What is equal in `beside`: weights (float32), prompts (`prompt_tokens` is told for both), at most 32 new tokens at
temperature 1, both end at the model's end of turn (so `tokens` are a few less than 32 for each request), clients and
their connections, one torch thread each, no other load. What is not: the noise, so that the texts differ; the memory
for keys and values, which `transformers serve` takes at its start and whose size is given to it here, as its default
does not fit a CPU; and exactness: a reply of `grpo-serve` depends on its seed and its tokens alone, for which each pass
has the width of 32 replies however many are under way, and attention is computed for each length by itself. With a
model as small as this one nearly all time is Python's, on both sides; `tokens_per_cpu_second` is of the server's
process and says more than `tokens_per_second` on a machine that does something else, the clients included.

    python benchmarks/serving.py                           all of them, as a table; serving.json
    python benchmarks/serving.py --only overhead overload  some
    python benchmarks/serving.py --quick                   smaller numbers, to see that it runs

Times mean something on a machine that does nothing else. It ends with an error if a turn fails, or an overloaded server
answers anything but 200 and 429.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from stateset_agents import ConversationEnvironment, HelpfulnessReward, MultiTurnAgent, train
from stateset_agents.checkpoints import PROGRESS, write_checkpoint
from stateset_agents.training.saving import Subject

MESSAGES = [
    "I need help with my order.",
    "It should have come on Monday.",
    "The number is 4711.",
    "Can I have a refund?",
]
NEW_TOKENS = 32
GROWTH_MEGABYTES = 20
"""By which a second overload may take more memory than the first: less than its requests would, if they were kept."""


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        conversations: at once.
        turns: of each.
        places: of the overloaded server; as many may wait.
        quiet_turns: of one client, for the overhead.
        clients: of the two servers beside each other.
        requests: of all these clients together.
    """

    conversations: int = 100
    turns: int = 4
    places: int = 8
    quiet_turns: int = 300
    clients: int = 100
    requests: int = 1000


QUICK = Size(conversations=10, turns=2, places=2, quiet_turns=10, clients=2, requests=4)


@dataclass
class Server:
    """A server in a process of its own."""

    url: str
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return float(self.process.memory_info().rss / 2**20)


@contextlib.contextmanager
def started(command: Sequence[str], url: str, ready: str, folder: Path) -> Iterator[Server]:
    """Run a server until the block ends."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url + ready).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield Server(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def ours(checkpoint: Path, *flags: str) -> Iterator[Server]:
    """`grpo-serve`, with a store that nobody else has."""
    port = free_port()
    command = ["stateset_agents.cli.serve", str(checkpoint), "--port", str(port), "--log-level", "WARNING", *flags]
    at = f"http://localhost:{port}"
    with tempfile.TemporaryDirectory() as folder, started(command, at, "/readyz", Path(folder)) as server:
        yield server


@contextlib.contextmanager
def theirs(checkpoint: Path) -> Iterator[Server]:
    """`transformers serve`, with the settings with which its continuous batching works on a CPU."""
    port = free_port()
    command = ["transformers.cli.transformers", "serve", str(checkpoint), "--port", str(port), "--device", "cpu"]
    command += ["--continuous-batching", "--attn-implementation", "sdpa", "--cb-num-blocks", "256"]
    command += ["--cb-max-batch-tokens", "512"]
    at = f"http://localhost:{port}"
    with tempfile.TemporaryDirectory() as folder, started(command, at, "/health", Path(folder)) as server:
        yield server


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def tiny_checkpoint(folder: Path) -> Path:
    """A trained checkpoint of the tiny model."""
    path = folder / "tiny"
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=NEW_TOKENS)
    talk = ConversationEnvironment([{"user_responses": MESSAGES[:1]}], max_turns=1)
    overrides = {"num_generations": 2}
    await train(agent, talk, num_episodes=2, save_path=str(path), config_overrides=overrides, quiet=True)
    return path


def stub_checkpoint(folder: Path) -> Path:
    """A checkpoint that says one sentence, without a model."""
    talk = ConversationEnvironment([{"user_responses": MESSAGES[:1]}])
    agent = MultiTurnAgent.from_model(
        "stub://I am happy to help you with your order, and with whatever comes after it."
    )
    records = Subject(agent, talk, HelpfulnessReward(), {}).to_records() | {PROGRESS: {"step": 1}}
    return write_checkpoint(folder / "stub", records=records)


@contextlib.asynccontextmanager
async def client_of(server: Server, connections: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with so many connections."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=300) as http:
        yield http


async def timed(work: Callable[[], Awaitable[httpx.Response]]) -> tuple[float, httpx.Response]:
    """Seconds that a request took, and its answer."""
    begun = time.perf_counter()
    answer = await work()
    return time.perf_counter() - begun, answer


async def counted(http: httpx.AsyncClient, name: str) -> float:
    """A number of `/metrics`."""
    found = re.search(rf"^{name} (\S+)$", (await http.get("/metrics")).text, flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    at = min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))
    return {"p50_ms": round(1000 * statistics.median(ordered), 2), "p99_ms": round(1000 * ordered[at], 2)}


@contextlib.asynccontextmanager
async def watched_memory(server: Server) -> AsyncIterator[list[float]]:
    """What the server's resident memory was, in megabytes, every 20 ms of the block."""
    seen = [server.megabytes]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.02)
            seen.append(server.megabytes)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


async def talk(size: Size, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """Many conversations at once."""
    waiting = str(2 * size.conversations)
    with ours(checkpoints["tiny"], "--max-waiting", waiting, "--max-conversations", waiting) as server:
        async with client_of(server, size.conversations) as http:
            times: list[float] = []

            async def converse(number: int) -> int:
                order = random.Random(number).sample(MESSAGES * size.turns, size.turns)
                place = (await http.post("/chat/start", json={})).headers["location"]
                failed = 0
                for message in order:
                    seconds, answer = await timed(
                        lambda text=message: http.post(f"{place}/message", json={"message": text})
                    )
                    times.append(seconds)
                    failed += answer.status_code != 200
                return failed

            await converse(-1)  # the first reply is preceded by a check of the model
            times.clear()
            tokens = await counted(http, "grpo_serve_generation_tokens_total")
            begun, cpu = time.perf_counter(), server.cpu_seconds
            errors = sum(await asyncio.gather(*map(converse, range(size.conversations))))
            wall = time.perf_counter() - begun
            tokens = await counted(http, "grpo_serve_generation_tokens_total") - tokens
            return {
                "turns": len(times),
                "errors": errors,
                **spread(times),
                "tokens": int(tokens),
                "tokens_per_second": round(tokens / wall, 1),
                "tokens_per_cpu_second": round(tokens / (server.cpu_seconds - cpu), 1),
            }


async def overload(size: Size, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """Ten times as many requests as there are places."""
    most = str(size.places)
    clients = 10 * 2 * size.places
    with ours(checkpoints["tiny"], "--max-running", most, "--max-waiting", most) as server:
        async with client_of(server, clients) as http:
            statuses: Counter[int] = Counter()
            accepted: list[float] = []

            async def insist(number: int) -> None:
                for _ in range(size.turns):
                    body = request_body("tiny", number)
                    seconds, answer = await timed(lambda one=body: http.post("/v1/chat/completions", json=one))
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        accepted.append(seconds)
                    else:
                        await asyncio.sleep(0.05)

            await http.post("/v1/chat/completions", json=request_body("tiny", 0))
            before = server.megabytes
            peaks = []
            for _ in range(2):
                async with watched_memory(server) as seen:
                    await asyncio.gather(*map(insist, range(clients)))
                peaks.append(round(max(seen), 1))
            return {
                "clients": clients,
                "places_and_queue": 2 * size.places,
                "statuses": dict(sorted(statuses.items())),
                **{f"accepted_{name}": value for name, value in spread(accepted).items()},
                "megabytes_before": round(before, 1),
                "megabytes_at_most": peaks[0],
                "megabytes_at_most_again": peaks[1],
                "megabytes_after": round(server.megabytes, 1),
            }


async def overhead(size: Size, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """What the server takes for a turn beside the model."""
    told: dict[str, Any] = {}
    with ours(checkpoints["stub"], "--max-turns", "1000000", "--max-conversations", "1000") as server:
        async with client_of(server, 1) as http:
            for name, stream in (("turn", False), ("streamed_turn", True)):
                times: list[float] = []
                cpu = server.cpu_seconds
                for number in range(size.quiet_turns):
                    if number % 10 == 0:  # conversations of ten turns: a prompt that grows is another cost
                        place = (await http.post("/chat/start", json={})).headers["location"]
                    body = {"message": MESSAGES[number % len(MESSAGES)], "stream": stream}
                    seconds, _ = await timed(lambda one=body, at=place: http.post(f"{at}/message", json=one))
                    times.append(seconds)
                told[name] = {**spread(times), "cpu_ms": round(1000 * (server.cpu_seconds - cpu) / size.quiet_turns, 2)}
            seconds_alone = [(await timed(lambda: http.get("/livez")))[0] for _ in range(size.quiet_turns)]
            told["a_request_for_nothing"] = spread(seconds_alone)
    return told


def request_body(model: str, number: int) -> dict[str, Any]:
    """A chat completion request; clients differ in what they say."""
    words = f"{MESSAGES[number % len(MESSAGES)]} I am client {number}."
    messages = [{"role": "user", "content": words}]
    return {"model": model, "messages": messages, "max_tokens": NEW_TOKENS, "temperature": 1.0, "seed": number}


async def completions(server: Server, model: str, size: Size) -> dict[str, Any]:
    """So many requests by so many clients."""
    async with client_of(server, size.clients) as http:
        left = iter(range(size.requests))
        times: list[float] = []
        cut: list[str] = []
        tokens = errors = prompt = 0

        async def ask() -> None:
            nonlocal tokens, errors, prompt
            for number in left:
                body = request_body(model, number)
                try:
                    seconds, answer = await timed(lambda one=body: http.post("/v1/chat/completions", json=one))
                except httpx.TransportError as error:  # the connection was cut before there was an answer
                    cut.append(type(error).__name__)
                    continue
                times.append(seconds)
                if answer.status_code == 200:
                    usage = answer.json()["usage"]
                    tokens += usage["completion_tokens"]
                    prompt += usage["prompt_tokens"]
                else:
                    errors += 1

        await http.post("/v1/chat/completions", json=request_body(model, 0))
        begun, cpu = time.perf_counter(), server.cpu_seconds
        await asyncio.gather(*(ask() for _ in range(size.clients)))
        wall = time.perf_counter() - begun
        return {
            "requests": len(times),
            "errors": errors,
            "cut": len(cut),
            **spread(times),
            "prompt_tokens": prompt,
            "tokens": tokens,
            "tokens_per_second": round(tokens / wall, 1),
            "tokens_per_cpu_second": round(tokens / (server.cpu_seconds - cpu), 1),
            "megabytes": round(server.megabytes, 1),
        }


async def beside(size: Size, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """The same requests to both servers, in both orders."""
    path = checkpoints["tiny"]
    told: dict[str, Any] = {}
    for turn, order in enumerate((("grpo-serve", "transformers serve"), ("transformers serve", "grpo-serve"))):
        for name in order:
            try:
                with ours(path, "--max-waiting", "1000") if name == "grpo-serve" else theirs(path) as server:
                    model = "tiny" if name == "grpo-serve" else str(path)
                    told[f"{name}, run {turn + 1}"] = await completions(server, model, size)
            except SystemExit as error:
                if name == "grpo-serve":
                    raise
                told[f"{name}, run {turn + 1}"] = {"did_not_start": str(error)[-500:]}
    return told


MEASUREMENTS = {"talk": talk, "overload": overload, "overhead": overhead, "beside": beside}


def problems(results: dict[str, Any]) -> list[str]:
    """Promises that were not kept."""
    found = []
    if results.get("talk", {}).get("errors"):
        found.append(f"talk: {results['talk']['errors']} turns failed")
    others = set(results.get("overload", {}).get("statuses", {})) - {200, 429}
    if others:
        found.append(f"overload: answered with {sorted(others)}")
    first, again = (results.get("overload", {}).get(f"megabytes_at_most{end}", 0) for end in ("", "_again"))
    if again > first + GROWTH_MEGABYTES:
        found.append(f"overload: {first} MB at most in the first round, and {again} MB in the second")
    for name, told in results.get("beside", {}).items():
        if name.startswith("grpo-serve") and told["errors"]:
            found.append(f"{name}: {told['errors']} requests failed")
    return found


def rows(results: dict[str, Any]) -> Iterator[str]:
    """A markdown table."""
    yield "| measurement | what | value |"
    yield "|---|---|---|"
    for name, told in results.items():
        for key, value in told.items():
            shown = ", ".join(f"{one} {two}" for one, two in value.items()) if isinstance(value, dict) else value
            yield f"| {name} | {key} | {shown} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write `serving.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="smaller numbers")
    parser.add_argument("--output-dir", type=Path, default=Path())
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {"stub": stub_checkpoint(Path(folder)), "tiny": asyncio.run(tiny_checkpoint(Path(folder)))}
        results = {name: asyncio.run(MEASUREMENTS[name](size, checkpoints)) for name in given.only}
    print("\n".join(rows(results)))
    given.output_dir.mkdir(parents=True, exist_ok=True)
    (given.output_dir / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    broken = problems(results)
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
