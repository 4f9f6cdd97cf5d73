"""A run whose surroundings change: the clock, the disk, the files that it was told to read."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CLOCK_JUMPS_BACK = """
import datetime, time
real, calls = time.time, [0]
def jumping():
    calls[0] += 1
    return real() - 400 * 86400 * (calls[0] % 3)
time.time = jumping
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(jumping(), tz)
from stateset_agents.checkpoints import manifest
from stateset_agents.tracking import status
manifest.datetime = status.datetime = Jumping
"""

STOPS_AFTER_STEP_2 = """
import os, signal
from stateset_agents.training import trainer
record = trainer.Trainer._record
def stopping(self, row):
    record(self, row)
    if row["step"] == 2:
        os.kill(os.getpid(), signal.SIGINT)
trainer.Trainer._record = stopping
"""

NOBODY_READS = """
import os
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
os.dup2(write, 2)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_run_that_nobody_reads_any_longer_goes_on_to_its_end(work, form):
    """Mutation: the first line that a closed pipe refuses ends the run, with its last steps unsaved."""
    work.write(logging__format=form)
    assert work.train("--output-dir", "whole").code == 0
    assert work.train(before=NOBODY_READS + STOPS_AFTER_STEP_2).code == 75
    assert work.status()["state"] == "interrupted"
    assert work.train("--resume", before=NOBODY_READS).code == 0
    assert work.status()["state"] == "finished"
    assert work.result() == work.result("whole")


def test_a_clock_that_jumps_back_changes_nothing(work):
    """Mutation: the newest checkpoint found by its time. Intervals are measured on a clock that never goes back."""
    work.write(training__save_every=4)
    assert work.train("--output-dir", "whole").code == 0
    assert work.train(before=CLOCK_JUMPS_BACK + STOPS_AFTER_STEP_2).code == 75
    checkpoints = work.path / "outputs" / "checkpoints"
    assert sorted(file.name for file in checkpoints.iterdir()) == ["step-1", "step-2"]
    for age, name in enumerate(("step-1", "step-2")):  # the older one looks newer
        for file in (checkpoints / name, *(checkpoints / name).iterdir()):
            os.utime(file, (2e9 - 1e6 * age,) * 2)
    ended = work.train("--resume", before=CLOCK_JUMPS_BACK)
    assert ended.code == 0, ended.err
    assert "resumed step 2: exact" in ended.err
    assert work.result() == work.result("whole")
    seconds = [row[key] for row in work.metrics(times=True) for key in row if key.endswith("seconds") and row[key]]
    assert min(seconds) >= 0.0
    assert max(seconds) < 3600


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A file system of its own, and the command that makes it read-only."""
    place, mount = tmp_path / "disk", shutil.which("mount")
    place.mkdir()
    command = [mount or "", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield place, [mount, "-o", "remount,ro", str(place)]
    subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_has_become_read_only_is_told_and_nothing_is_lost(work, other_disk):
    place, make_read_only = other_disk
    assert work.train("--output-dir", "whole").code == 0
    ended = work.train("--output-dir", "disk/run", before=STOPS_AFTER_STEP_2)
    assert ended.code == 75, ended.err
    subprocess.run(make_read_only, check=True)
    for arguments in (("--output-dir", "disk/run", "--resume"), ("--output-dir", "disk/new")):
        ended = work.train(*arguments)
        assert ended.code == 3, ended.err
        assert "cannot be written (" in ended.err
        assert "Traceback" not in ended.err
    shutil.copytree(place / "run", work.path / "outputs")
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert work.result() == work.result("whole")


def test_a_scenarios_file_that_is_gone_is_told_at_the_resume_and_nothing_is_touched(work):
    assert work.train(before=STOPS_AFTER_STEP_2).code == 75
    before = work.snapshot()
    hidden = work.path / "scenarios.json"
    hidden.rename(work.path / "elsewhere.json")
    ended = work.train("--resume")
    assert ended.code == 3
    assert 'environment.scenarios_file is "scenarios.json", and there is no such file' in ended.err
    assert "Traceback" not in ended.err
    assert work.snapshot() == before
    (work.path / "elsewhere.json").rename(hidden)
    assert work.train("--resume").code == 0
