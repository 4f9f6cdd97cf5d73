"""Killed at any instant, a save leaves the old checkpoint or the new one, never an error and never a mixture.

A driver process saves once under a hook that counts every file-system call; then it forks a child for each of them,
which dies at just that call, and reads what is left.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stateset_agents.checkpoints import clean_stale_temporaries, latest_checkpoint, read_checkpoint, write_checkpoint
from stateset_agents.checkpoints.locate import list_checkpoints

SAVE = """
import json, os, sys
from pathlib import Path
import torch
from stateset_agents.checkpoints import *
from stateset_agents.core.errors import CheckpointError

def save(folder, step, **options):
    def model(place):
        (place / "config.json").write_text(json.dumps({"step": step}))
    write_checkpoint(
        folder,
        tensors={"policy": {"w": torch.full((50, 50), float(step))}, "optimizer": {"m": torch.full((9,), float(step))}},
        records={"trainer": {"step": step}}, parts={"model": model}, **options,
    )

def content(path):
    checkpoint = read_checkpoint(path)
    return {
        checkpoint.record("trainer")["step"], int(checkpoint.tensors("policy")["w"][3, 3]),
        int(checkpoint.tensors("optimizer")["m"][0]),
        json.loads((checkpoint.part("model") / "config.json").read_text())["step"],
    }
"""

CRASH_AT_EACH_CALL = (
    SAVE
    + """
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir", "os.scandir"}
calls, die_at = 0, -1

def count(event=None, _args=None):
    global calls
    if event is None or event in EVENTS:
        calls += 1
        if calls == die_at:
            os._exit(77)

fsync = os.fsync
def counted_fsync(descriptor):
    count()
    fsync(descriptor)

def child(work, n):
    global die_at
    pid = os.fork()
    if pid == 0:
        die_at = n
        sys.addaudithook(count)
        os.fsync = counted_fsync
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def crash_everywhere(root, prepare, work, look):
    seen = []
    for n in range(1, 2000):
        folder = root / str(n)
        folder.mkdir()
        prepare(folder)
        died = child(lambda: work(folder), n) == 77
        seen.append([n, sorted(look(folder))])
        if not died:
            return seen
    raise SystemExit("never finished")

root = Path(sys.argv[1])
for name in ("new", "replace"):
    (root / name).mkdir()

def look_for_latest(folder):
    found, skipped = latest_checkpoint(folder)
    assert not skipped, skipped
    step = content(found)
    clean_stale_temporaries(folder)
    left = sorted(path.name for path in folder.iterdir())
    assert left in (["step-1"], ["step-1", "step-2"]), left
    assert content(latest_checkpoint(folder)[0]) == step
    return step

def look_for_final(folder):
    step = content(folder / "final_model")
    assert content(resolve_checkpoint(folder)) == step
    clean_stale_temporaries(folder)
    assert [path.name for path in folder.iterdir()] == ["final_model"]
    assert content(folder / "final_model") == step
    return step

print(json.dumps({
    "new": crash_everywhere(
        root / "new", lambda f: save(f / "step-1", 1), lambda f: save(f / "step-2", 2), look_for_latest),
    "replace": crash_everywhere(
        root / "replace", lambda f: save(f / "final_model", 1),
        lambda f: save(f / "final_model", 2, replace=True), look_for_final),
}))
"""
)

SAVE_FOR_EVER = (
    SAVE
    + """
folder = Path(sys.argv[1])
clean_stale_temporaries(folder)
found, _ = latest_checkpoint(folder)
step = content(found).pop() if found else 0
print("started", flush=True)
while True:
    step += 1
    save(folder / f"step-{step}", step)
    prune_checkpoints(folder, 2)
"""
)


def test_a_save_killed_at_any_file_system_call_leaves_the_old_or_the_new(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", CRASH_AT_EACH_CALL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    for kind, seen in json.loads(run.stdout).items():
        steps = [step for _, step in seen]
        assert len(seen) > 40, f"{kind}: only {len(seen)} calls were met"
        switch = steps.index([2])
        assert steps == [[1]] * switch + [[2]] * (len(steps) - switch), kind
        assert switch < len(steps) - 1, f"{kind}: no call was met after the new one took its place"


def test_a_trainer_killed_at_random_moments_always_finds_its_last_checkpoint(tmp_path):
    rng, last = random.Random(4), 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"started\n"
            while max((step for step, _ in list_checkpoints(tmp_path)), default=0) <= last:
                time.sleep(0.01)  # on a busy machine the first save takes longer than all of what follows
            time.sleep(rng.uniform(0.02, 0.3))
            process.send_signal(signal.SIGKILL)
        found, skipped = latest_checkpoint(tmp_path)
        assert skipped == []
        step = read_checkpoint(found).record("trainer")["step"]
        assert found.name == f"step-{step}"
        assert step > last
        last = step
    clean_stale_temporaries(tmp_path)
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_explained(tmp_path):
    from stateset_agents.core.errors import RunFolderError

    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="permission denied"):
        write_checkpoint(tmp_path / "step-1", records={"state": 1})
    tmp_path.chmod(0o700)


def test_every_byte_and_name_is_synced_before_the_rename_and_the_parent_after(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        events.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append(("rename", Path(target).name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    write_checkpoint(tmp_path / "step-1", records={"a": 1, "b": 2})
    temporary = f".tmp-step-1-{os.getpid()}"
    assert events == [
        ("fsync", "a.json"),
        ("fsync", "b.json"),
        ("fsync", "manifest.json"),
        ("fsync", temporary),
        ("rename", "step-1"),
        ("fsync", tmp_path.name),
    ]
