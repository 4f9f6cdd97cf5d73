"""When a run ends before its plan, counted by hand."""

import logging
import math

import pytest

from stateset_agents.core.errors import TrainingStopped
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.training.stopping import EarlyStopping, FlatSteps, Judge, require_something_to_learn


def test_patience_is_counted_from_the_best_evaluation():
    """Mutation: counting from the last improvement over the previous one; or an equal score as a new best."""
    early = EarlyStopping(3)
    scores = [0.2, 0.5, 0.4, 0.45, 0.5]
    best = [early.update(step, score) for step, score in enumerate(scores, start=1)]
    assert best == [True, True, False, False, False]
    assert (early.best, early.best_step, early.without_improvement) == (0.5, 2, 3)
    assert early.should_stop
    assert early.update(6, 0.51)
    assert not early.should_stop


def test_negative_and_missing_scores_have_a_best_too():
    """Mutation: a best that begins at 0."""
    early = EarlyStopping(1)
    assert early.update(1, -2.0)
    assert not early.update(2, math.nan)
    assert early.should_stop


def test_without_patience_nothing_stops():
    early = EarlyStopping(None)
    for step in range(100):
        early.update(step, 0.0)
    assert not early.should_stop


def test_a_resumed_count_goes_on():
    """Mutation: a best that is not saved lets every resumed run begin a new patience."""
    early = EarlyStopping(2)
    assert early.state_dict() == {"best": None, "best_step": 0, "without_improvement": 0}
    fresh = EarlyStopping(2)
    fresh.load_state_dict(early.state_dict())
    assert fresh.best == -math.inf
    early.update(1, 0.5)
    early.update(2, 0.4)
    assert early.state_dict() == {"best": 0.5, "best_step": 1, "without_improvement": 1}
    resumed = EarlyStopping(2)
    resumed.load_state_dict(early.state_dict())
    assert not resumed.update(3, 0.45)
    assert resumed.should_stop


def test_flat_steps_warn_once_at_three_and_stop_at_ten():
    flat = FlatSteps()
    seen = []
    for _ in range(11):
        flat.update(updated=False)
        seen.append((flat.should_warn, flat.should_stop))
    assert [warn for warn, _ in seen] == [False, False, True] + [False] * 8
    assert [stop for _, stop in seen] == [False] * 9 + [True, True]
    flat.update(updated=True)
    assert (flat.count, flat.should_warn, flat.should_stop) == (0, False, False)


def flat_row(step: int, reward: float | None) -> dict[str, object]:
    return {"step": step, "updated": False, "reward_mean": reward}


def test_ten_flat_steps_on_a_high_reward_are_success(caplog):
    """Mutation: the check for success left out."""
    judge = Judge(None, solved=0.95)
    with caplog.at_level(logging.WARNING):
        verdicts = [judge.after(flat_row(step, 0.95)) for step in range(1, 11)]
    assert verdicts[:9] == [None] * 9
    assert verdicts[9] == "stopped early: every conversation gets (nearly) the attainable reward"
    assert [record.getMessage() for record in caplog.records] == [
        "3 steps in a row had no group with different rewards: nothing was learned from them"
    ]


def test_flat_steps_of_which_only_the_last_went_well_are_no_success():
    """0.5 nine times and 1 once are 0.55 in the mean, also of a run that was resumed after the fifth."""
    first, second = Judge(None, solved=0.95), Judge(None, solved=0.95)
    for step in range(1, 6):
        first.after(flat_row(step, 0.5))
    second.load_state_dict(first.state_dict())
    for step in range(6, 10):
        second.after(flat_row(step, 0.5))
    with pytest.raises(TrainingStopped, match=r"same reward \(mean 0.550\)"):
        second.after(flat_row(10, 1.0))


@pytest.mark.parametrize(
    ("reward", "solved", "message"),
    [
        (0.94, 0.95, r"same reward \(mean 0.940\).*\n.*raise the temperature"),
        (5.0, None, r"same reward \(mean 5.000\)"),
        (None, 0.95, "no conversation could be scored"),
    ],
)
def test_ten_flat_steps_otherwise_are_an_error(reward, solved, message):
    judge = Judge(None, solved=solved)
    for step in range(1, 10):
        assert judge.after(flat_row(step, reward)) is None
    with pytest.raises(TrainingStopped, match=f"10 steps in a row had nothing to learn from: .*{message}"):
        judge.after(flat_row(10, reward))


def test_evaluations_without_improvement_end_the_run_with_numbers():
    judge = Judge(2, solved=0.95)
    rows = [
        {"step": step, "updated": True, "eval_reward_mean": score} for step, score in [(1, 0.6), (2, 0.5), (3, 0.6)]
    ]
    assert [judge.after(row) for row in rows] == [
        None,
        None,
        "stopped early: 2 evaluations without improvement; best 0.600 at step 1",
    ]


def test_steps_without_an_evaluation_do_not_use_up_patience():
    judge = Judge(1, solved=0.95)
    judge.after({"step": 1, "updated": True, "eval_reward_mean": 0.5})
    assert [judge.after({"step": step, "updated": True}) for step in range(2, 20)] == [None] * 18


def test_an_agent_without_weights_is_never_flat():
    judge = Judge(None, solved=0.95)
    assert [judge.after({"step": step, "reward_mean": 0.1}) for step in range(1, 30)] == [None] * 29


def test_a_judge_s_counts_survive_a_restart():
    judge = Judge(2, solved=None)
    for step in range(1, 10):
        judge.after({**flat_row(step, 0.3), "eval_reward_mean": 1.0 - step})
    resumed = Judge(2, solved=None)
    resumed.load_state_dict(judge.state_dict())
    assert resumed.state_dict() == judge.state_dict()
    assert resumed.state_dict()["flat_steps"] == 9
    with pytest.raises(TrainingStopped, match="10 steps in a row"):
        resumed.after(flat_row(10, 0.3))


def talk(
    outcome: Outcome = Outcome.OK, reward: float | None = 1.0, *, trained: int = 1, **extra
) -> MultiTurnTrajectory:
    row = TokenRow([5, 6], [0, trained], [0.0, -1.0], [-1, 0])
    return MultiTurnTrajectory("s", rows=[row], reward=reward, outcome=outcome, **extra)


def test_a_first_step_that_can_be_learned_from_passes():
    require_something_to_learn([TrajectoryGroup.of("s", [talk(), talk(trained=0)])], trains=True)
    require_something_to_learn([TrajectoryGroup.of("s", [talk(trained=0)])], trains=False)


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (
            [talk(Outcome.AGENT, None, error="boom"), talk(Outcome.REWARD, None), talk(Outcome.AGENT, None)],
            "2 of 3 failed in the agent's process_turn: boom",
        ),
        ([talk(Outcome.USER, None, error="gone")], "1 of 1 failed in the simulated user: gone"),
        ([talk(reward=None)], "nothing to judge them by: it gave no score"),
        ([talk(trained=0)], "no reply of the first step reached its conversation as the model sampled it"),
    ],
)
def test_a_first_step_without_anything_to_learn_says_who_failed(episodes, message):
    with pytest.raises(TrainingStopped, match=message):
        require_something_to_learn([TrajectoryGroup.of("s", episodes)], trains=True)
