"""Ctrl-C and SIGTERM in every phase of a run: how long until the process is gone, with which code, and what was lost.

The run is the one of `tests/e2e/test_killed_runs.py`: a shop with a tool that blocks and one that is awaited, a model
that was taught to call them, six steps of two updates each, an evaluation after every second one. The process sends
itself the signal in the middle of the phase; tools and rewards then hang for 30 s, as slow ones do. Afterwards the run
is resumed and compared with one that nothing disturbed.

    python benchmarks/interruptions.py                       the table; exit code 1 if a promise was not kept
    python benchmarks/interruptions.py --only "tool call"    phases whose name begins so
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from taught_shop import taught_shop  # noqa: E402
from workplace import Ended, Running, Workplace  # noqa: E402

GRACE = 10.0
"""Seconds within which the process must be gone."""

STOP = """
import asyncio, os, time
from stateset_agents.agents import toolbox
from stateset_agents.training import closing, execution, learner, saving, trainer
Trainer = trainer.Trainer
NUMBER = {number}
at = {{"steps": None, "told": False}}

def stop():
    if not at["told"]:
        at["told"] = True
        with open("told", "w") as file:
            file.write(repr(time.monotonic()))
        os.kill(os.getpid(), NUMBER)

def wrap(place, name, before, when=lambda: True):
    whole = getattr(place, name)
    def wrapped(*arguments, **more):
        if when():
            before()
        return whole(*arguments, **more)
    setattr(place, name, wrapped)

def steps_are(number):
    return lambda: at["steps"] == number

def hang():
    stop()
    time.sleep(30)

async def hang_without_blocking():
    stop()
    await asyncio.sleep(30)

one_step = Trainer._one_step
async def counted(self, step):
    at["steps"] = step
    await one_step(self, step)
Trainer._one_step = counted
"""

TOOL = """
called = toolbox._called
async def slow(function, arguments):
    if at["steps"] == 2 and function.__name__ == "{name}" and not at["told"]:
        {hang}
    return await called(function, arguments)
toolbox._called = slow
"""

PHASES: dict[str, tuple[str, int]] = {
    "start-up": ('wrap(execution, "require_memory", stop)', 0),
    "loading": ('wrap(Trainer, "prepare", stop)', 0),
    "rollout": ('from stateset_agents.agents import ToolAgent\nwrap(ToolAgent, "process_turn", stop, steps_are(2))', 2),
    "tool call, in a thread": (TOOL.format(name="price", hang="await toolbox._in_a_thread(hang, {})"), 2),
    "tool call, awaited": (TOOL.format(name="filled", hang="await hang_without_blocking()"), 2),
    "reward": (
        """
from stateset_agents.training.playing import Player
play = Player.play
async def judged(self, *arguments):
    if at["steps"] == 2:
        async def slow(*_, **__):
            await hang_without_blocking()
        self._reward.compute_reward = slow
    return await play(self, *arguments)
Player.play = judged
""",
        2,
    ),
    "learning": ('wrap(learner.Learner, "_update", stop, steps_are(2))', 3),
    "between steps": (
        """
record = Trainer._record
def recorded(self, row):
    record(self, row)
    if self.steps == 3:
        stop()
Trainer._record = recorded
""",
        3,
    ),
    "evaluation": (
        """
evaluated = Trainer._evaluation_row
async def evaluation(self):
    if self.steps == 4:
        stop()
    return await evaluated(self)
Trainer._evaluation_row = evaluation
""",
        4,
    ),
    "saving": ('wrap(saving, "save_model_folder", stop, steps_are(2))', 3),
    "final save": ('wrap(closing, "save_final", stop)', 6),
}
"""The code that makes a run send itself the signal in this phase, and the step that is saved then."""


class Commands:
    """Starts commands as they are installed, each in a fresh process."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._number = 0

    def start(self, *argv: str, cwd: Path, before: str = "", **env: str) -> Running:
        """Start `grpo-train`, and run `before` in its process first."""
        self._number += 1
        out, err = (self._scratch / f"{self._number}.{name}" for name in ("out", "err"))
        # Where this script was started in the background, its children would ignore Ctrl-C.
        first = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{first}\n{before}\nfrom stateset_agents.cli.train import main\nmain()"
        with out.open("w") as told, err.open("w") as warned:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *argv[1:]], cwd=cwd, env=os.environ | env, stdout=told, stderr=warned
            )
        return Running(process.pid, lambda: Ended(process.wait(), out.read_text(), err.read_text()), out, err)


def interrupt(work: Workplace, phase: str, number: signal.Signals) -> dict[str, Any]:
    """Interrupt a run in a phase, and resume it."""
    folder = f"{phase} {number.name}".replace(",", "").replace(" ", "-")
    code, saved = PHASES[phase]
    (work.path / "told").unlink(missing_ok=True)
    ended = work.start("run.json", "--output-dir", folder, before=STOP.format(number=int(number)) + code).wait()
    seconds = time.monotonic() - float((work.path / "told").read_text())
    steps = [int(one.name.removeprefix("step-")) for one in (work.path / folder / "checkpoints").glob("step-*")]
    begun = (work.path / folder / "status.json").exists()
    resumed = work.train("--output-dir", folder, *(["--resume"] if begun else []))
    # A stop saves between the regular checkpoints too, which lets other ones go, and notes an evaluation that is yet to
    # be made: of the earlier checkpoints the weights and the optimizer of those that both runs have are compared.
    one, other = work.result(folder), work.result("whole")
    compared = {name for name in other if not name.startswith("checkpoints/") or name.startswith("checkpoints/step-6/")}
    compared |= {name for name in one.keys() & other.keys() if name.endswith(".safetensors")}
    different = sorted(name for name in compared if one.get(name) != other[name])
    return {
        "phase": phase,
        "signal": number.name,
        "seconds": seconds,
        "code": ended.code,
        "saved": max(steps, default=0),
        "expected": saved,
        "equal": resumed.code == 0 and not different,
        "different": different,
        "told": ended.err.strip().splitlines()[-1:],
    }


def broken(row: dict[str, Any]) -> list[str]:
    """The promises that were not kept."""
    where = f"{row['signal']} in the phase {row['phase']}: "
    code = 0 if row["phase"] == "final save" else 75  # after the last step nothing is left to resume
    found = []
    if row["seconds"] > GRACE:
        found.append(f"{where}{row['seconds']:.1f} s until the process was gone")
    if row["code"] != code:
        found.append(f"{where}exit code {row['code']} {row['told']}")
    if row["saved"] != row["expected"]:
        found.append(f"{where}step {row['saved']} was saved, not {row['expected']}")
    if not row["equal"]:
        found.append(f"{where}the resumed run differs: {', '.join(row['different'])}")
    return found


def main(argv: list[str] | None = None, commands: Any = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="phases whose name begins so")
    arguments = parser.parse_args(argv)
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "logs").mkdir()
        work = taught_shop(Path(folder), commands or Commands(Path(folder) / "logs"))
        print("| phase | signal | seconds until it is gone | exit code | saved at step | resumed, equal to the byte |")
        print("|---|---|---|---|---|---|")
        for phase in PHASES:
            for number in (signal.SIGINT, signal.SIGTERM) if phase.startswith(arguments.only) else ():
                row = interrupt(work, phase, number)
                cells = [phase, row["signal"], f"{row['seconds']:.2f}", row["code"], row["saved"] or "-"]
                print("|", " | ".join(map(str, [*cells, "yes" if row["equal"] else "NO"])), "|", flush=True)
                problems += broken(row)
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
