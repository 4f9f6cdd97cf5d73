"""An hour of training in which everything fails one time in ten: memory, file descriptors and threads stay as they are.

The run is `grpo-train`'s: a small model that was taught to call tools, conversations of three turns with a user behind
a server, a judge behind a server, checkpoints, evaluations, a log file, TensorBoard, and alerts to a webhook. Each kind
of failure has a random source of its own, and comes to every tenth call of its place: the environment raises or hangs,
a tool raises, hangs or blocks its thread, the reward raises, the user and the judge answer 500 or 429, hang, cut the
connection or send half a body, memory runs out in an update or while replies are sampled, TensorBoard and the webhook
fail. Nine tenths of the time are one run, which SIGTERM ends; in the last tenth it is resumed three times, by the same
process. What memory ran out for is set back after each step: it would otherwise happen only until nothing is left to
halve.

The servers are another process; a third one reads `/proc` every ten seconds.

    python benchmarks/soak.py                     an hour: two tables, soak.json and, with the `plots` extra, soak.svg
    python benchmarks/soak.py --minutes 3         a short one, which says little about a leak

Flat is what this means: in the second half of the first run, memory (less what the rows of metrics take, which a run
keeps for its report) rises by less than 1 % an hour, or 5 MB, beyond twice the standard error of its slope; and of
descriptors and threads the median of the last minutes of all is no more than two above that of the first ones after
the warm-up. It ends with an error if something is not flat, if the calls that failed in one way are more than four
standard errors from a tenth, or if the process stopped for another reason. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [name for name in (str(ROOT / "tests"), str(Path(__file__).parent)) if name not in sys.path]

from soak_summary import FIRST, QUANTITIES, SHARE, problems, summary  # noqa: E402

EVERY = 10.0
"""Seconds between two looks."""
RESUMES = 3
HANG = 5.0
"""Seconds, longer than any limit here."""
SHOP = ROOT / "tests" / "e2e" / "shop"
CONFIG: dict[str, Any] = {
    "agent": {
        "type": "tool",
        "model_name": "taught/final_model",
        "max_new_tokens": 56,
        "temperature": 0.7,
        "tools": [{"name": "price", "function": "soaked.price"}],
    },
    "environment": {"type": "custom", "class": "soaked.UnreliableShop"},
    "rewards": [
        {"type": "custom", "module": "soaked.served"},
        {
            "type": "llm_judge",
            "base_url": "",
            "model": "judge",
            "rubric": "Is it an answer?",
            "cache_file": "judged.sqlite",
            "seconds": 0.5,
            "retries": 3,
        },
    ],
    "training": {
        "num_episodes": 10_000_000,
        "num_generations": 4,
        "batch_size": 8,
        "gradient_accumulation_steps": 4,
        "beta": 0.01,
        "learning_rate": 1e-6,
        "lr_schedule": "constant",
        "mixed_precision": False,
        "save_every": 320,
        "eval_every": 640,
        "eval_samples": 2,
        "early_stopping": False,
        "threads": 1,
        "environment_timeout": 2.0,
        "reward_timeout": 4.0,
    },
    "alerts": [{"name": "many fail", "metric": "failed", "above": 16}],
    "logging": {"log_file": "run.log", "tensorboard": {}, "alerts": {"webhook_env": "SOAK_WEBHOOK", "cool_down": 0}},
}


class Chance:
    """Which calls fail, a random source for each kind; counts calls and failures."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sources: dict[str, random.Random] = {}
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()

    def strikes(self, kind: str) -> bool:
        """Whether this call fails so."""
        with self._lock:
            source = self._sources.setdefault(kind, random.Random(f"{self._seed} {kind}"))
            struck = source.random() < SHARE
            self.calls[kind] += 1
            self.injected[kind] += struck
        return struck

    def counts(self) -> dict[str, list[int]]:
        """Calls and failures by kind."""
        with self._lock:
            return {kind: [self.calls[kind], self.injected[kind]] for kind in self.calls}


def write(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old or the new."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value))
    beside.replace(path)


def serve(place: str, seed: int) -> None:
    """The process of the servers: a user, a judge and the receiver of alerts."""
    from endpoint_server import BROKEN, BUSY, CUT, MALFORMED, EndpointServer, Reply

    chance = Chance(seed)
    faults = {
        "answers 500": BROKEN,
        "answers 429": BUSY,
        "hangs": Reply(delay=HANG),
        "cuts the connection": CUT,
        "sends half a body": MALFORMED,
    }

    def unreliable(who: str, answer: Callable[[dict[str, Any]], Any], kinds: Sequence[str]) -> EndpointServer:
        def behaviour(number: int, body: dict[str, Any]) -> Any:
            server.bodies.clear()
            server.headers.clear()
            struck = [kind for kind in kinds if chance.strikes(f"{who} {kind}")]
            return faults[struck[number % len(struck)]] if struck else answer(body)

        server = EndpointServer(behaviour)
        return server

    def line(body: dict[str, Any]) -> str:
        said = sum(message["role"] == "assistant" for message in body["messages"])
        return "I buy it." if said < 2 else "And one more."

    def score(body: dict[str, Any]) -> str:
        return json.dumps({"score": len(body["messages"][1]["content"]) % 11, "reason": "so it seems"})

    with (
        unreliable("the user", line, list(faults)) as user,
        unreliable("the judge", score, list(faults)) as judge,
        unreliable("the webhook", lambda body: Reply(), ["answers 500"]) as hook,
    ):
        write(Path(place, "servers.json"), [user.base_url, judge.base_url, hook.base_url])
        while os.getppid() > 1:
            write(Path(place, "served.json"), chance.counts())
            time.sleep(1)


def soak(place: str, seed: int) -> None:
    """The process that trains, until a SIGTERM for each part of the run."""
    import soaked

    from stateset_agents.agents import ToolLimits
    from stateset_agents.cli import train as command
    from stateset_agents.config import load_config
    from stateset_agents.core.errors import Interrupted
    from stateset_agents.training.trainer import Trainer

    folder = Path(place)
    chance = soaked.CHANCE = Chance(seed)
    kept = {"steps": 0, "rows": 0}
    prepare, record = Trainer.prepare, Trainer._record

    async def prepared(self: Any, *arguments: Any, **more: Any) -> None:
        await prepare(self, *arguments, **more)
        self.agent.limits = ToolLimits(seconds_per_call=0.5)
        run_short_of_memory(self, chance)
        for sink in self.parts.sinks.sinks:
            sink.log = unless_struck(sink.log, chance, "TensorBoard fails")

    def recorded(self: Any, row: dict[str, Any]) -> None:
        record(self, row)
        kept["steps"] = self.steps
        kept["rows"] = sum(map(size_of, self.rows)) if len(self.rows) % 50 == 0 else kept["rows"] + size_of(row)
        tasks = len(asyncio.all_tasks())
        told = {"tasks": tasks, "objects": len(gc.get_objects()), **kept, "sinks": dict(self.parts.sinks.failures)}
        write(folder / "pulse.json", told | {"counts": chance.counts()})

    Trainer.prepare, Trainer._record = prepared, recorded  # type: ignore[method-assign]
    sys.argv = ["grpo-train", "run.json"]
    for part in range(1 + RESUMES):
        config = load_config(folder / "run.json", output_dir=str(folder / "run"))
        try:
            command.run(config, resume=part > 0, resume_from=None)
        except Interrupted as error:
            print(error, flush=True)
        else:
            raise SystemExit("the run came to its end")


def size_of(row: Mapping[str, Any]) -> int:
    """Bytes that a row of metrics takes, its keys not counted: most of them are the code's own."""
    return sys.getsizeof(row) + sum(map(sys.getsizeof, row.values()))


def unless_struck(call: Callable[..., Any], chance: Chance, kind: str) -> Callable[..., Any]:
    """The call, which fails at times."""

    def struck(*arguments: Any, **more: Any) -> Any:
        if chance.strikes(kind):
            raise OSError("injected: no space left on device")
        return call(*arguments, **more)

    return struck


def run_short_of_memory(trainer: Any, chance: Chance) -> None:
    """Have every tenth step run out of memory in the update, and every tenth one while replies are sampled."""
    import torch

    learner, engine = trainer.learner, trainer._engine
    short = {"update": False, "sampling": False}
    step, advance, one_step = learner.step, engine._advance, trainer._one_step

    def fail(*_: Any) -> None:
        if short["update"]:
            short["update"] = False
            raise torch.OutOfMemoryError("CUDA out of memory. Injected")

    def learn(*arguments: Any, **more: Any) -> Any:
        short["update"] = chance.strikes("memory runs out in an update")
        try:
            return step(*arguments, **more)
        finally:
            learner.micro_batch.size = trainer.config.batch_size
            short["update"] = False

    def sample() -> None:
        if short["sampling"] and len(engine._live) > 7:
            short["sampling"] = False
            raise torch.OutOfMemoryError("CUDA out of memory. Injected")
        advance()

    async def whole(number: int) -> None:
        short["sampling"] = chance.strikes("memory runs out while sampling")
        engine._most_active = None
        await one_step(number)

    trainer.agent.runtime.model.model.base_model.register_forward_hook(fail)
    learner.step, engine._advance, trainer._one_step = learn, sample, whole


class Sampler:
    """What a process takes, by `/proc`."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path) -> None:
        self._process, self._place = process, place
        self._begin = time.monotonic()
        self.rows: list[dict[str, Any]] = []

    @property
    def minutes(self) -> float:
        """Since the beginning."""
        return (time.monotonic() - self._begin) / 60

    def until(self, minute: float) -> None:
        """Look again and again."""
        while self.minutes < minute:
            if self._process.poll() is not None:
                raise SystemExit(f"the run ended after {self.minutes:.1f} minutes with code {self._process.returncode}")
            self.rows.append(self._look())
            time.sleep(max(0.0, min(EVERY, 60 * (minute - self.minutes))))

    def _look(self) -> dict[str, Any]:
        proc = Path("/proc", str(self._process.pid))
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        told = self._place / "pulse.json"
        pulse = json.loads(told.read_text()) if told.exists() else {}
        return {
            "minute": self.minutes,
            "memory": int(status["VmRSS"].split()[0]) / 1024,
            "descriptors": sum(1 for _ in (proc / "fd").iterdir()),
            "threads": int(status["Threads"]),
            **{name: pulse.get(name) for name in ("tasks", "objects", "steps")},
            "rows": pulse.get("rows", 0) / 2**20,
        }


def seen(run: Path) -> dict[str, int]:
    """What the run's own files say of failures."""
    counts: Counter[str] = Counter()
    with (run / "trajectories.jsonl").open() as lines:
        for line in lines:
            one = json.loads(line)
            error = one.get("error") or ""
            counts[f"outcome {one['outcome']}"] += 1
            counts["environment raises"] += "injected: the environment" in error
            counts["environment hangs"] += one["outcome"] == "environment" and "injected" not in error
            counts["the reward raises"] += "injected: the reward" in error
            for turn in one["turns"]:
                if turn["role"] == "tool":
                    counts["tool calls"] += 1
                    counts["a tool raises"] += "injected: the tool" in turn["content"]
                    late = '"error": "timeout"' in turn["content"]
                    counts["a tool blocks its thread"] += late and turn["tool_result"]["name"] == "price"
                    counts["a tool hangs"] += late and turn["tool_result"]["name"] == "buy"
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        counts.update({name: row[name] for name in ("failed_user", "failed_environment", "failed_reward")})
    log = (run / "run.log").read_text()
    counts["memory runs out in an update"] = log.count("conversations in the model at once (")
    counts["memory runs out while sampling"] = log.count("replies under way (")
    counts["TensorBoard fails"] = sum(map(int, re.findall(r"tensorboard failed (\d+) times", log)))
    counts["alerts"] = len((run / "alerts.jsonl").read_text().splitlines())
    return dict(counts)


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = ["| failure | calls | injected | seen in the run's files |", "|---|---|---|---|"]
    noted = result["seen"]
    for kind, (calls, injected) in sorted(result["injected"].items()):
        lines.append(f"| {kind} | {calls} | {injected} ({injected / calls:.1%}) | {noted.get(kind, '')} |")
    lines += ["", "| | warm | middle | end | resumed | largest | rise an hour |", "|---|---|---|---|---|---|---|"]
    for name, label in (QUANTITIES | {"rows": "of it rows of metrics, MB"}).items():
        row = result["summary"][name]
        cells = [f"{row[place]:.1f}" for place in ("warm", "middle", "end", "resumed", "largest")]
        lines.append(f"| {label} | {' | '.join(cells)} | {row['slope']:+.1f} ± {2 * row['error']:.1f} |")
    return "\n".join(lines)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Memory, descriptors and threads over the minutes."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "soak"})  # text stays text; equal bytes again
    from matplotlib import pyplot

    figure, places = pyplot.subplots(3, sharex=True, figsize=(8, 5.4))
    minutes = [row["minute"] for row in result["looks"]]
    for axes, name in zip(places, ("memory", "descriptors", "threads"), strict=True):
        axes.plot(minutes, [row[name] for row in result["looks"]], linewidth=0.8, color="tab:blue")
        axes.set(ylabel=QUANTITIES[name], ylim=(0, None))
        for part in result["parts"]:
            axes.axvline(part, color="black", linewidth=0.5)
    places[-1].set(xlabel="minutes (lines: stopped and resumed)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def start(place: Path, call: str, log: str, **env: str) -> subprocess.Popen[bytes]:
    """A process that calls a function of this file."""
    paths = [str(ROOT / "benchmarks"), str(ROOT / "tests"), *sys.path]
    with (place / log).open("w") as told:
        return subprocess.Popen(
            [sys.executable, "-c", f"import soak\nsoak.{call}"],
            cwd=place,
            env=os.environ | env | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=told,
            stderr=subprocess.STDOUT,
        )


def measure(place: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Teach the model, then soak."""
    for file in (*SHOP.iterdir(), ROOT / "benchmarks" / "soaked.py"):
        if file.is_file():
            shutil.copy(file, place)
    taught = "sys.argv = ['grpo-train', 'imitate.json', '--output-dir', 'taught']"
    code = start(
        place, f"sys; import sys; {taught}; from stateset_agents.cli.train import main; main()", "taught.log"
    ).wait()
    if code:
        raise SystemExit(f"the model could not be taught: {place / 'taught.log'}")
    servers = start(place, f"serve({str(place)!r}, {seed})", "servers.log")
    process = None
    try:
        while not (place / "servers.json").exists():
            time.sleep(0.1)
        user, judge, hook = json.loads((place / "servers.json").read_text())
        config = json.loads(json.dumps(CONFIG))
        config["rewards"][1]["base_url"] = judge
        (place / "run.json").write_text(json.dumps(config, indent=1))
        env = {"SOAK_USER": user, "SOAK_WEBHOOK": f"{hook}/chat/completions"}
        process = start(place, f"soak({str(place)!r}, {seed})", "soak.log", **env)
        sampler = Sampler(process, place)
        parts = [minutes * (FIRST + (1 - FIRST) * part / RESUMES) for part in range(RESUMES + 1)]
        for minute in parts:
            sampler.until(minute)
            process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        if code:
            raise SystemExit(f"the run ended with code {code}: {place / 'soak.log'}")
    finally:
        for one in (process, servers):
            if one is not None:
                one.kill()
                one.wait()
    pulse = json.loads((place / "pulse.json").read_text())
    disk = {file.name: file.stat().st_size for file in (place / "run").iterdir() if file.is_file()}
    return {
        "minutes": minutes,
        "parts": parts[:-1],
        "steps": pulse["steps"],
        "injected": pulse["counts"] | json.loads((place / "served.json").read_text()),
        "seen": seen(place / "run"),
        "disk": disk,
        "summary": summary(sampler.rows, minutes),
        "looks": sampler.rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/soak"))
    parser.add_argument("--read", type=Path, help="tell again of an earlier soak.json")
    options = parser.parse_args(arguments)
    place = options.output_dir.resolve()
    place.mkdir(parents=True, exist_ok=options.read is not None)
    if options.read:
        result = json.loads(options.read.read_text(encoding="utf-8"))
        result["summary"] = summary(result["looks"], result["minutes"])
    else:
        result = measure(place, options.minutes, options.seed)
        (place / "soak.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"\n{result['steps']} steps; seen: {result['seen']}; bytes on disk: {result['disk']}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: pip install 'grpo-agent-framework[plots]'", file=sys.stderr)
    else:
        plot(result, place / "soak.svg")
    if found := problems(result):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
