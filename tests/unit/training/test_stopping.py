"""When a run ends before its last step."""

import pytest

from stateset_agents.core.errors import TrainingStopped
from stateset_agents.training.stopping import FLAT_STEPS_STOP, Judge


def flat_steps(judge, reward):
    for step in range(FLAT_STEPS_STOP - 1):
        assert judge.after({"step": step, "updated": False, "reward_mean": reward}) is None
    return judge.after({"step": FLAT_STEPS_STOP, "updated": False, "reward_mean": reward})


def test_flat_steps_at_the_attainable_reward_are_success():
    assert "attainable reward" in flat_steps(Judge(None, solved=0.95), 0.96)


def test_flat_steps_below_the_attainable_reward_are_an_error():
    with pytest.raises(TrainingStopped):
        flat_steps(Judge(None, solved=0.95), 0.5)


def test_no_reward_is_success_where_nobody_knows_the_highest():
    with pytest.raises(TrainingStopped):
        flat_steps(Judge(None, solved=None), 7.0)
