"""A resume that is refused says why, and leaves the run as it was."""

import json
import shutil

import pytest

from workplace import ANOTHER_MODEL, KILLED_AFTER_3

FAILS_WHILE_LOADING = """
from stateset_agents.training import trainer
async def broken(self, *_, **__):
    raise MemoryError("no memory left")
trainer.Trainer.prepare = broken
"""

HAS_NO_ROOM = """
from stateset_agents.core.errors import DataError
from stateset_agents.training import trainer
def refused(*_):
    raise DataError("a scenario leaves no room for a reply")
trainer.require_room = refused
"""


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (FAILS_WHILE_LOADING, "out of memory"),
        (ANOTHER_MODEL, "is a checkpoint of another model"),
        (HAS_NO_ROOM, "a scenario leaves no room"),
    ],
    ids=["memory", "another model", "no room"],
)
def test_what_is_refused_when_the_model_is_loaded_leaves_every_file_as_it_was(work, before, told):
    """What may change is asked for with it, and the newest checkpoint is damaged: neither is written down."""
    work.write(training__save_every=4)
    assert work.train().code == 0
    (work.path / "outputs" / "checkpoints" / "step-4" / "model.safetensors").write_bytes(b"cut")
    files = work.snapshot()
    ended = work.train("--resume", "--num-episodes", "24", before=before)
    assert ended.code == 3, ended.err
    assert told in ended.err
    assert work.snapshot() == files
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 0, ended.err
    assert "num_episodes: 24" in (work.path / "outputs" / "config.yaml").read_text()
    assert len(work.metrics()) == 6


def test_a_new_run_that_cannot_take_up_the_weights_it_was_killed_before_saving_is_left_as_it_was(work):
    """It has logged nothing that a checkpoint holds, and begins at the checkpoint of another run."""
    work.write(training__save_every=16)
    assert work.train("--output-dir", "first").code == 0
    killed = """
import os, signal
from stateset_agents.training import trainer
trainer.Trainer.save = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert work.train("--output-dir", "next", "--resume-from", "first", before=killed).code == -9
    files = work.snapshot("next")
    ended = work.train("--output-dir", "next", "--resume", before=ANOTHER_MODEL)
    assert ended.code == 3, ended.err
    assert "is a checkpoint of another model" in ended.err
    assert work.snapshot("next") == files
    ended = work.train("--output-dir", "next", "--resume")
    assert ended.code == 0, ended.err
    assert json.loads((work.path / "next" / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("name", ["metrics.jsonl", "trajectories.jsonl", "status.json", "report.txt"])
def test_a_folder_in_place_of_a_file_of_the_run_is_named(work, name):
    assert work.train("--num-episodes", "8").code == 0
    (work.path / "outputs" / name).unlink()
    (work.path / "outputs" / name).mkdir()
    files = work.snapshot()
    for more in ((), ("--dry-run",)):
        ended = work.train("--resume", *more)
        assert ended.code == 3, ended.err
        assert f"run folder error: {name} in outputs is a folder, where the run has a file." in ended.err
    assert work.snapshot() == files


def test_a_checkpoint_under_the_name_of_another_step_is_passed_over(work):
    """Mutation: the name is not compared. Then the run goes back to step 2, and the good step 4 counts as damaged."""
    assert work.train().code == 0
    checkpoints = work.path / "outputs" / "checkpoints"
    shutil.copytree(checkpoints / "step-2", checkpoints / "step-9")
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 0, ended.err
    told = "passed over: outputs/checkpoints/step-9 is named after step 9, but holds the state after step 2"
    assert told in ended.err
    assert "resumed outputs at step 4 of 6" in ended.err
    assert (checkpoints / "damaged-step-9").is_dir()
    assert (checkpoints / "step-4").is_dir()


@pytest.mark.parametrize("damage", ["cut", "renamed"])
def test_a_run_none_of_whose_checkpoints_can_be_used_is_not_begun_again_over_its_logs(work, damage):
    """Mutation: begun again because something was passed over; its logs are cut to nothing."""
    work.write(training__save_every=4, training__keep_checkpoints=1)
    assert work.train().code == 0
    place = work.path / "outputs" / "checkpoints" / "step-4"
    weights = (place / "model.safetensors").read_bytes()
    if damage == "cut":
        (place / "model.safetensors").write_bytes(weights[:-1])
    else:
        place.rename(place.with_name("step-5"))
    files = work.snapshot()
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 3, ended.err
    assert "none of the checkpoints in outputs/checkpoints can be gone on from, for the reasons above" in ended.err
    assert "passed over: " in ended.err
    assert work.snapshot() == files
    if damage == "cut":
        (place / "model.safetensors").write_bytes(weights)
    else:
        place.with_name("step-5").rename(place)
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 0, ended.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3, 4, 5, 6]


def test_a_state_that_cannot_be_taken_up_leaves_every_file_as_it_was(work):
    """Killed after step 3, with a checkpoint after step 2. Mutation: the logs are cut before the state is read."""
    assert work.train(before=KILLED_AFTER_3).code == -9
    assert len(work.metrics()) == 3
    files = work.snapshot()
    broken = """
from stateset_agents.training.trainer import Trainer
def changed(self, *_):
    raise KeyError("seen")
Trainer.load_state_dict = changed
"""
    assert work.train("--resume", before=broken).code != 0
    assert work.snapshot() == files
    assert work.train("--resume").code == 0


def test_a_first_checkpoint_that_is_damaged_is_written_anew(work):
    """Of a run that begins with another's weights. Mutation: it is left in the place of the new one."""
    assert work.train("--output-dir", "first").code == 0
    killed = """
import os, signal
from stateset_agents.training import trainer
trainer.Trainer.run = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert work.train("--output-dir", "next", "--resume-from", "first", before=killed).code == -9
    checkpoint = work.path / "next" / "checkpoints" / "step-0"
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:-1])
    ended = work.train("--output-dir", "next", "--resume", before=killed)
    assert ended.code == -9, ended.err
    assert "at step 0: the checkpoint that it began with is damaged, so it begins again" in ended.err
    assert (checkpoint / "model.safetensors").read_bytes() == weights
    assert (checkpoint.parent / "damaged-step-0").is_dir()
    (work.path / "first").rename(work.path / "gone")
    ended = work.train("--output-dir", "next", "--resume")
    assert ended.code == 0, ended.err
