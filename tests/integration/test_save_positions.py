"""A step is whole or it was not made: no checkpoint lies between the updates of one, wherever a run is stopped in it.

Two updates a step, a checkpoint after each step: every pair of an update and a checkpoint is met.
"""

import signal

import pytest

SETTINGS = {
    "training__num_iterations": 2,
    "training__save_every": 4,
    "training__keep_checkpoints": 9,
    "training__grace_period": 600,
}

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

SIGNAL_AT_LOOK = """
import os
from stateset_agents.training.giving_up import Lookout
from stateset_agents.training.learner import Learner
look, update, begun, made = Lookout.look, Learner._update, Lookout.during, [0, 0, 0]
def during(self, is_over):
    made[:] = [made[0] + 1, 0, 0]
    return begun(self, is_over)
def updating(self, rate):
    made[1] += 1
    made[2] = 0
    return update(self, rate)
def looking(self, *arguments):
    made[2] += 1
    if made == [{step}, {updates}, {look}]:
        os.kill(os.getpid(), {number})
    look(self, *arguments)
Lookout.during, Lookout.look, Learner._update = during, looking, updating
"""
"""Makes a command send itself a signal in a step, after so many of its updates, before a layer."""


def without_settings(result: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in result.items() if not name.endswith(("run.json", "config.yaml"))}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("updates", [0, 1])
@pytest.mark.parametrize("look", [2, 5], ids=["forwards", "backwards"])
def test_an_update_that_would_not_end_in_time_is_given_up_and_made_the_same_by_the_resumed_run(
    work, whole, look, updates, number
):
    """In the first step, and in the third one. A pass has a look before it, and two layers forwards and backwards.

    Mutations: the handler waits for the event loop; the step's scenarios count as drawn; weights between two updates.
    """
    work.write(**SETTINGS | {"training__grace_period": 0, "training__save_every": 0})
    for step, at, told in (
        (1, 1, "stopped before the first step was done; nothing was lost"),
        (3, 3, "stopped and saved at step 2 in outputs"),
    ):
        before = SIGNAL_AT_LOOK.format(step=at, updates=updates, look=look, number=number)
        ended = work.train(*([] if step == 1 else ["--resume"]), before=before)
        assert ended.code == 75, ended.err
        assert f"the update of step {step} is given up: it could not be made and saved within 0 s (g" in ended.err
        assert told in ended.err
        assert saved(work) == (["step-2"] if step == 3 else [])
    assert work.train("--resume").code == 0
    result = without_settings(work.result())
    assert result == {name: content for name, content in without_settings(whole).items() if name in result}
    assert {name.split("/")[1] for name in result if name.startswith("checkpoints/")} == {"step-2", "step-4"}
    assert {"metrics.jsonl", "trajectories.jsonl", "report.txt", "final_model/model.safetensors"} <= result.keys()
