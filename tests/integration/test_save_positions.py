"""A step is whole or it was not made: no checkpoint lies between the updates of one, wherever a run is stopped in it.

Two updates a step, a checkpoint after each step: every pair of an update and a checkpoint is met.
"""

import signal

import pytest

SETTINGS = {"training__num_iterations": 2, "training__save_every": 4, "training__keep_checkpoints": 9}

SIGNAL_AT = """
import os
from stateset_agents.training.learner import Learner
update, made = Learner._update, []
def signalling(self, rate):
    norm = update(self, rate)
    made.append(self.steps + 1)
    if self.steps + 1 == {step} and made.count({step}) == {update}:
        os.kill(os.getpid(), {number})
    return norm
Learner._update = signalling
"""
"""Makes a command send itself a signal when an update of a step was made."""


def saved(work) -> list[str]:
    return sorted(folder.name for folder in (work.path / "outputs" / "checkpoints").iterdir())


@pytest.fixture
def whole(work):
    work.write(**SETTINGS)
    ended = work.train("--output-dir", "whole")
    assert ended.code == 0, ended.err
    result = work.result("whole")
    assert len({name.split("/")[1] for name in result if name.startswith("checkpoints/")}) == 4
    return result


def test_a_run_killed_after_each_update_of_each_step_begins_that_step_again_and_ends_the_same(work, whole):
    """Mutation: a checkpoint is written between two updates of a step."""
    for step in (1, 2, 3, 4):
        for update in (1, 2):
            more = [] if (step, update) == (1, 1) else ["--resume"]
            ended = work.train(*more, before=SIGNAL_AT.format(step=step, update=update, number=signal.SIGKILL))
            assert ended.code == -signal.SIGKILL, ended.err
            assert saved(work) == [f"step-{number}" for number in range(1, step)]
    assert work.train("--resume").code == 0
    assert work.result() == whole


@pytest.mark.parametrize("update", [1, 2])
def test_a_run_told_to_stop_at_an_update_makes_the_others_of_the_step_and_saves_it_whole(work, whole, update):
    """Mutation: the step in progress is given up; it is saved with the updates made so far."""
    codes = []
    for step in (1, 2, 3, 4):
        more = [] if step == 1 else ["--resume"]
        ended = work.train(*more, before=SIGNAL_AT.format(step=step, update=update, number=signal.SIGTERM))
        codes.append(ended.code)
        assert saved(work) == [f"step-{number}" for number in range(1, step + 1)], ended.err
    assert codes == [75, 75, 75, 0]  # after the last step nothing is left to resume
    assert work.result() == whole
