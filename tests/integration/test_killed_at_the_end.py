"""A run that is killed when its last step is done ends, resumed, with the files of an undisturbed one, and no others.

Between any two writes there: the last checkpoint, the removal of older ones, the final model, the report, the status.
"""

import signal

import pytest

from stateset_agents.tracking.layout import REPORT

KILLED = """
import os, shutil, signal
from stateset_agents.checkpoints.manifest import Manifest
from stateset_agents.tracking.run_folder import RunFolder
from stateset_agents.training import closing, saving

def killed_at(owner, name, last):
    work = getattr(owner, name)
    def killing(*given, **more):
        if last(*given, **more):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*given, **more)
    setattr(owner, name, killing)

"""
MOMENTS = {
    "the last checkpoint is half written": 'killed_at(Manifest, "write", lambda _, place: "-step-4-" in place.name)',
    "older checkpoints are there still": (
        'killed_at(saving, "prune_checkpoints", lambda place, *_, **__: (place / "step-4").exists())'
    ),
    "an older checkpoint has lost its name": (
        'killed_at(shutil, "rmtree", lambda place, *_, **__: ".trash-step-3-" in str(place))'
    ),
    "there is no final model yet": 'killed_at(closing, "save_final", lambda *_, **__: True)',
    "the final model is half written": ('killed_at(Manifest, "write", lambda _, place: "-final_model-" in place.name)'),
    "there is no report yet": 'killed_at(RunFolder, "write_text", lambda _, name, __: name == "report.txt")',
    "the status still says that it runs": (
        'killed_at(RunFolder, "set_status", lambda _, state, *__: state == "finished")'
    ),
}


def names(work, run: str) -> list[str]:
    root = work.path / run
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def whole(work):
    work.write(training__save_every=4, training__keep_checkpoints=1)
    ended = work.train("--output-dir", "whole")
    assert ended.code == 0, ended.err
    assert [file.name for file in (work.path / "whole" / "checkpoints").iterdir()] == ["step-4"]
    return work.result("whole")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_after_its_last_step_ends_with_the_very_files_of_an_undisturbed_one(work, whole, moment):
    """Mutations: nothing is removed at the end of a run that was resumed there; a half-written final model stays."""
    killed = work.train(before=KILLED + MOMENTS[moment])
    assert killed.code == -signal.SIGKILL, killed.err
    assert len(work.metrics()) == 4
    assert work.status()["state"] == "running"  # "finished" is said last
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert names(work, "outputs") == names(work, "whole")
    assert work.result() == whole
    assert work.status()["state"] == "finished"
    assert ended.out == (work.path / "outputs" / REPORT).read_text()
