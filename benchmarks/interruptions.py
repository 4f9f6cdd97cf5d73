"""Ctrl-C and SIGTERM in every phase of a run: how long until the process is gone, with which code, and what was lost.

The run is the one of `tests/e2e/test_killed_runs.py`: a shop with a tool that blocks and one that is awaited, a model
that was taught to call them, six steps of two updates each, an evaluation after every second one. The process sends
itself the signal in the middle of the phase; tools and rewards then hang for 30 s, as slow ones do. Afterwards the run
is resumed and compared with one that nothing disturbed.

With `--model` the run is that of the quickstart, three steps of 8 conversations, with a model of which an update takes
longer than anybody waits. It is interrupted in its third step.

    python benchmarks/interruptions.py                       the table; exit code 1 if a promise was not kept
    python benchmarks/interruptions.py --only "tool call"    phases whose name begins so
    python benchmarks/interruptions.py --model smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

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

AT_LOOK = """
from stateset_agents.training.giving_up import Lookout
look, looks = Lookout.look, []
def looking(self, *arguments):
    if at["steps"] == 2 and self._open:
        looks.append(1)
        if len(looks) == {look}:
            stop()
    look(self, *arguments)
Lookout.look = looking
"""
OF_A_MODEL: dict[str, tuple[str, int]] = {
    "loading": ('wrap(Trainer, "prepare", stop)', 1),
    "rollout": (
        """
from stateset_agents.agents import MultiTurnAgent
turns = []
def in_the_midst():
    if at["steps"] == 2:
        turns.append(1)
        if len(turns) == 12:
            stop()
wrap(MultiTurnAgent, "process_turn", in_the_midst)
""",
        2,
    ),
    "learning, at its beginning": (AT_LOOK.format(look=1), 2),
    "learning, forwards": (AT_LOOK.format(look=16), 2),
    "learning, backwards": (AT_LOOK.format(look=46), 2),
    "final save": ('wrap(closing, "save_final", stop)', 3),
}
"""The same for a model of 30 layers in one micro-batch. The run was stopped after its first step, and goes on."""


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
    code, saved = PHASES[phase]
    folder = f"{phase} {number.name}".replace(",", "").replace(" ", "-")
    row = interrupted(work, folder, STOP.format(number=int(number)) + code)
    begun = (work.path / folder / "status.json").exists()
    resumed = work.train("--output-dir", folder, *(["--resume"] if begun else []))
    # A stop saves between the regular checkpoints too, which lets other ones go, and notes an evaluation that is yet to
    # be made: of the earlier checkpoints the weights and the optimizer of those that both runs have are compared.
    one, other = work.result(folder), work.result("whole")
    compared = {name for name in other if not name.startswith("checkpoints/") or name.startswith("checkpoints/step-6/")}
    compared |= {name for name in one.keys() & other.keys() if name.endswith(".safetensors")}
    different = sorted(name for name in compared if one.get(name) != other[name])
    return {"phase": phase, "signal": number.name, "expected": saved, **row, **came_to(resumed, different)}


def interrupt_model(work: Workplace, phase: str, number: signal.Signals) -> dict[str, Any]:
    """Interrupt the run of a real model in a phase, and resume it."""
    code, saved = OF_A_MODEL[phase]
    shutil.copytree(work.path / "begun", work.path / "run")
    row = interrupted(work, "run", STOP.format(number=int(number)) + code, "--resume")
    resumed = work.train("--output-dir", "run", "--resume")
    one, other = (digests(work, folder) for folder in ("run", "whole"))
    shutil.rmtree(work.path / "run")
    different = sorted(name for name in other if one.get(name) != other[name])
    return {"phase": phase, "signal": number.name, "expected": saved, **row, **came_to(resumed, different)}


def interrupted(work: Workplace, folder: str, before: str, *flags: str) -> dict[str, Any]:
    """How a run ended that sent itself a signal."""
    (work.path / "told").unlink(missing_ok=True)
    ended = work.start("run.json", "--output-dir", folder, *flags, before=before).wait()
    seconds = time.monotonic() - float((work.path / "told").read_text())
    steps = [int(one.name.removeprefix("step-")) for one in (work.path / folder / "checkpoints").glob("step-*")]
    told = ended.err.strip().splitlines()[-1:]
    return {"seconds": seconds, "code": ended.code, "saved": max(steps, default=0), "told": told}


def came_to(resumed: Ended, different: list[str]) -> dict[str, Any]:
    """Whether a resumed run ended as the undisturbed one."""
    return {"equal": resumed.code == 0 and not different, "different": different}


def digests(work: Workplace, run: str) -> dict[str, Any]:
    """What a run came to: the bytes of its tensors, and its metrics."""
    files = [*(work.path / run).glob("final_model/*.safetensors")]
    files += (work.path / run).glob("checkpoints/step-3/*.safetensors")
    found: dict[str, Any] = {"metrics.jsonl": work.metrics(run)}
    for file in files:
        with file.open("rb") as opened:
            found[str(file.relative_to(work.path / run))] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def run_of_a_model(place: Path, commands: Any, model: str) -> Workplace:
    """A place with the run as it is after its first step (`begun`), and at its end (`whole`)."""
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    config["agent"]["model_name"] = model
    config["environment"]["scenarios_file"] = str(ROOT / config["environment"]["scenarios_file"])
    config["training"] |= {"num_episodes": 24, "save_every": 0, "eval_scenarios_file": None, "keep_checkpoints": 1}
    config["training"]["overrides"] |= {"batch_size": 8, "gradient_accumulation_steps": 1}
    work = Workplace(place, commands, config)
    work.write()
    after_the_first = PHASES["between steps"][0].replace("self.steps == 3", "self.steps == 1")
    number = int(signal.SIGTERM)
    begun = work.start("run.json", "--output-dir", "begun", before=STOP.format(number=number) + after_the_first).wait()
    assert begun.code == 75, begun.err
    shutil.copytree(place / "begun", place / "whole")
    whole = work.train("--output-dir", "whole", "--resume")
    assert whole.code == 0, whole.err
    return work


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
    parser.add_argument("--model", help="in the place of the shop: the quickstart's run with this model")
    arguments = parser.parse_args(argv)
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "logs").mkdir()
        starts = commands or Commands(Path(folder) / "logs")
        if arguments.model:
            work, phases, one = run_of_a_model(Path(folder), starts, arguments.model), [*OF_A_MODEL], interrupt_model
        else:
            work, phases, one = taught_shop(Path(folder), starts), [*PHASES], interrupt
        print("| phase | signal | seconds until it is gone | exit code | saved at step | resumed, equal to the byte |")
        print("|---|---|---|---|---|---|")
        for phase in phases:
            for number in (signal.SIGINT, signal.SIGTERM) if phase.startswith(arguments.only) else ():
                row = one(work, phase, number)
                cells = [phase, row["signal"], f"{row['seconds']:.2f}", row["code"], row["saved"] or "-"]
                print("|", " | ".join(map(str, [*cells, "yes" if row["equal"] else "NO"])), "|", flush=True)
                problems += broken(row)
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
