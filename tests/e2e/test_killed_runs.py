"""A run with tools that is killed at any instant, again and again, or whose checkpoints are damaged, ends as it would.

Its tools and its reward take another time at each call, one in a thread and one in the event loop, and change what the
episode holds (`shop/shop.py`). Equal are, to the byte and but for clocks: weights, optimizer state and every record of
every checkpoint, the final model, metrics, conversations and the report.
"""

import json
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from stateset_agents.checkpoints.manifest import seal

NOTES_ITS_PHASE = """
from pathlib import Path
from stateset_agents.training.parts import RunParts
phase = RunParts.phase
def noted(self, name, *more):
    if name:
        Path("phase").write_text(name)
    phase(self, name, *more)
RunParts.phase = noted
Path("phase").write_text("starting")
"""


def assert_same(run: dict[str, bytes], whole: dict[str, bytes]) -> None:
    assert len(whole) > 20
    assert sorted(name for name in {*run, *whole} if run.get(name) != whole.get(name)) == []


def killed(shop, folder: str, kills: int, rng: random.Random, *flags: str, longest: float) -> Counter[str]:
    """Start a run, or go on with it, until it ends, and kill it at most so often; in which phases that was."""
    met: Counter[str] = Counter()
    while True:
        begun = (shop.path / folder / "status.json").exists()  # as docs/reliability.md tells a supervisor
        more = ["--resume"] if begun else []
        process = shop.start("run.json", "--output-dir", folder, *flags, *more, before=NOTES_ITS_PHASE)
        if met.total() < kills:
            time.sleep(rng.uniform(0.1, longest))
            process.send(signal.SIGKILL)
        ended = process.wait()
        if ended.code == 0:
            return met
        assert ended.code == -signal.SIGKILL, ended.err
        met[(shop.path / "phase").read_text()] += 1


def test_the_run_is_one_of_many_turns_with_tools_that_see_what_the_episode_holds(whole):
    rows = json.loads(whole["trajectories.jsonl"])
    told = Counter(turn["content"] for row in rows for turn in row["turns"] if turn["role"] == "tool")
    assert min(told["$3"], told["1 in it"], told["2 in it"]) > 5
    assert {row["success"] for row in rows} == {True, False}
    assert len({row["loss"] for row in json.loads(whole["metrics.jsonl"])}) > 2


def test_a_run_that_is_killed_three_times_ends_as_if_nothing_had_happened(shop, whole):
    """Mutation: the logs are not cut on resume; the judge or the number of drawn groups is not loaded."""
    met = killed(shop, "outputs", 3, random.Random(6), longest=2.5)
    assert met.total() == 3
    assert_same(shop.result(), whole)


@pytest.mark.slow
def test_thirty_kills_at_random_moments(shop):
    """Runs of 30 steps; each is killed until it ends, and the next begins, until it were thirty kills."""
    long = ["--num-episodes", "120"]
    ended = shop.train(*long, "--output-dir", "whole")
    assert ended.code == 0, ended.err
    rng, met, runs = random.Random(30), Counter(), 0
    while met.total() < 30:
        runs += 1
        met += killed(shop, f"run-{runs}", 30 - met.total(), rng, *long, longest=4)
        assert_same(shop.result(f"run-{runs}"), shop.result("whole"))
    print(f"{runs} runs, killed while {dict(met)}")
    assert len(met) > 2


MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def cut(path: Path) -> str:
    (path / MODEL).write_bytes((path / MODEL).read_bytes()[:-100])
    return MODEL


def bit_flipped(path: Path) -> str:
    data = bytearray((path / OPTIMIZER).read_bytes())
    data[len(data) // 2] ^= 1
    (path / OPTIMIZER).write_bytes(data)
    return OPTIMIZER


def missing(path: Path) -> str:
    (path / "trainer.json").unlink()
    return "trainer.json"


def emptied(path: Path) -> str:
    (path / MODEL).write_bytes(b"")
    return MODEL


def with_a_pickle(path: Path) -> str:
    (path / "optimizer.pt").write_bytes(b"\x80\x04N.")
    return "optimizer.pt"


def with_a_wrong_hash(path: Path) -> str:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][OPTIMIZER]["sha256"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest | {"seal": seal(manifest)}))
    return OPTIMIZER


def without_manifest(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "manifest.json"


def of_a_later_format(path: Path) -> str:
    manifest = json.loads((path / "manifest.json").read_text()) | {"version": 99}
    (path / "manifest.json").write_text(json.dumps(manifest | {"seal": seal(manifest)}))
    return "manifest.json"


def with_the_weights_of_another_step(path: Path) -> str:
    (path / MODEL).write_bytes((path.with_name("step-5") / MODEL).read_bytes())
    return MODEL


def linked(path: Path) -> str:
    (path / MODEL).rename(path.parents[2] / MODEL)
    (path / MODEL).symlink_to(path.parents[2] / MODEL)
    return MODEL


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        bit_flipped,
        missing,
        emptied,
        with_a_pickle,
        with_a_wrong_hash,
        without_manifest,
        of_a_later_format,
        with_the_weights_of_another_step,
        linked,
    ],
)
def test_a_damaged_newest_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(shop, taught, whole, damage):
    """Mutation: `latest_checkpoint` does not verify."""
    shutil.copytree(taught.path / "whole", shop.path / "outputs")
    shutil.rmtree(shop.path / "outputs" / "final_model")
    name = damage(shop.path / "outputs" / "checkpoints" / "step-6")
    ended = shop.train("--resume")
    assert ended.code == 0, ended.err
    (told,) = [line for line in ended.err.splitlines() if line.startswith("passed over: ")]
    assert "step-6" in told
    assert name in told
    assert "resumed outputs at step 5 of 6" in ended.err
    after = shop.result()
    assert any(file.startswith("checkpoints/damaged-step-6/") for file in after)
    assert_same({file: data for file, data in after.items() if "damaged" not in file}, whole)
