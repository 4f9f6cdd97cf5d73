"""When a run moves a setting by itself, with rows written by hand."""

import json

import pytest

from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.training.adjusting import RULES, Adjuster, Settings, told
from stateset_agents.training.curriculum import Curriculum
from stateset_agents.training.order import SeededOrder
from stateset_agents.training.stopping import Judge

WELL = {"reward_mean": 0.5, "reward_std": 0.2, "entropy": 2.0, "grad_norm": 1.0, "zero_variance_share": 0.0}


def settings(temperature=1.0, **changes) -> Settings:
    values = {"learning_rate": 0.064, "num_generations": 4, "batch_size": 16, "gradient_accumulation_steps": 1}
    return Settings(TrainingConfig.from_profile("balanced", **{**values, **changes}), temperature)


def rows(*changes, **always):
    """Rows of a run that neither rises nor falls, each with something else."""
    return [{"step": step, "updated": True, **WELL, **always, **row} for step, row in enumerate(changes, start=1)]


def play(adjuster, run) -> list[str]:
    """Show the rows one after the other; the moves as "step setting value"."""
    for step in range(1, len(run) + 1):
        adjuster.after(run[:step])
    return [f"{move.step} {move.setting} {move.after:g}" for move in adjuster.moves]


def test_a_level_run_without_symptoms_is_left_alone():
    adjuster = Adjuster(settings(), 1.0)
    assert play(adjuster, rows(*[{}] * 100)) == []
    assert adjuster.settings == settings()


def test_updates_shortened_three_times_in_a_row_lower_the_rate_by_the_largest_share_made_and_not_below_a_64th():
    """0.064 x 0.125, then x 0.5, then no further than 0.001. Mutation: the last share; the smallest; one cut alone."""
    shares = (0.5, 1.0, 0.125, 0.0625, 0.125, 0.5, 0.25, 0.25, *[1 / 64] * 3, 0.5, 0.5, 0.5)
    run = rows(*[{"step_share": share} for share in shares])
    adjuster = Adjuster(settings(), 1.0)
    assert play(adjuster, run[:4]) == []
    adjuster = Adjuster(settings(), 1.0)
    assert play(adjuster, run) == ["5 learning_rate 0.008", "8 learning_rate 0.004", "11 learning_rate 0.001"]


def test_a_step_without_an_update_is_no_cut_one():
    run = rows({"step_share": 0.5}, {"step_share": None}, {"step_share": 0.5}, {"step_share": 0.5}, {})
    assert play(Adjuster(settings(), 1.0), run) == []


def test_equal_groups_are_met_with_the_models_own_temperature_then_with_larger_groups_each_three_steps_later():
    """16 conversations a step: groups of 8, as many samples of two scenarios; nobody taught, so nobody rests."""
    adjuster = Adjuster(settings(temperature=0.3), 1.0)
    run = rows(*[{"zero_variance_share": 1.0, "updated": False, "entropy": None}] * 40)
    assert play(adjuster, run) == [
        "3 temperature 0.6", "6 temperature 1", "9 num_generations 8",
    ]  # fmt: skip
    assert adjuster.settings.config.plan.conversations_per_step == 16
    assert adjuster.settings.config.plan.groups_per_step == 2
    hot = Adjuster(settings(temperature=0.9, num_generations=16), 1.0)
    assert play(hot, run) == ["3 temperature 1"]


def test_equal_groups_of_a_solved_or_rising_task_are_success():
    """Mutation: `_fine` says no."""
    equal = {"zero_variance_share": 1.0}
    assert play(Adjuster(settings(), 1.0), rows(*[equal] * 40, reward_mean=0.95)) == []
    assert play(Adjuster(settings(), 1.0), rows(*[{**equal, "reward_mean": n / 10} for n in range(10)])) == []


def test_scenarios_rest_once_half_of_the_groups_were_equal_for_ten_steps_and_others_teach():
    adjuster = Adjuster(settings(), 1.0)
    assert play(adjuster, rows(*[{"zero_variance_share": 0.6}] * 30)) == ["10 curriculum 1"]
    assert adjuster.curriculum.rests
    assert str(adjuster.moves[0]).startswith("adjusted after step 10: scenarios that teach nothing rest, because 60%")


def test_a_collapse_of_entropy_without_gain_raises_the_temperature_up_to_twice_the_configured_one():
    run = rows(*[{"entropy": 2.0}] * 5, *[{"entropy": 0.3}] * 40)
    adjuster = Adjuster(settings(temperature=0.8), 1.0)
    # Step 9 is the first with four low ones: 0.2 of 2.0 is 0.4, and one of 2.0 among three of 0.3 is 0.725.
    assert play(adjuster, run) == ["9 temperature 1.2", "13 temperature 1.6"]
    assert "the entropy fell to" in adjuster.moves[0].reason
    rising = rows(*[{"entropy": 2.0 / step, "reward_mean": 0.02 * step} for step in range(1, 40)])
    assert play(Adjuster(settings(), 1.0), rising) == []


def test_with_several_updates_a_step_a_collapse_widens_the_clip_when_the_temperature_is_at_its_bound():
    run = rows(*[{"entropy": 2.0}] * 5, *[{"entropy": 0.1}] * 60)
    adjuster = Adjuster(settings(num_iterations=2, clip_high=0.2), 1.0)
    moved = [(move.setting, round(move.after, 3)) for _ in [play(adjuster, run)] for move in adjuster.moves]
    assert moved == [
        ("temperature", 1.5), ("temperature", 2.0),
        ("clip_high", 0.25), ("clip_high", 0.312), ("clip_high", 0.391), ("clip_high", 0.4),
    ]  # fmt: skip


def test_the_rate_is_halved_when_the_reward_fell_when_gradients_jump_and_when_ratios_leave_one():
    fell = rows(*[{"reward_mean": 0.6}] * 20, *[{"reward_mean": 0.3}] * 10)
    assert play(Adjuster(settings(), 1.0), fell) == ["24 learning_rate 0.032"]  # 0.48 is less than 0.6 - 0.2 / 2
    jumps = rows(*[{"grad_norm": norm} for norm in (1.0, 10.0) * 5])
    assert play(Adjuster(settings(), 1.0), jumps) == ["10 learning_rate 0.032"]
    ratios = rows(*[{"ratio_mean": 1.2}] * 3)
    assert play(Adjuster(settings(), 1.0), ratios) == ["3 learning_rate 0.032"]


def test_beta_is_doubled_only_where_there_is_a_reference():
    run = rows(*[{"kl": 2.0}] * 6)
    assert play(Adjuster(settings(), 1.0), run) == []
    assert play(Adjuster(settings(beta=0.04), 1.0), run) == ["6 beta 0.08"]


def test_a_setting_that_an_algorithm_has_no_use_for_is_not_moved():
    """Every algorithm, every rule: what is moved gives a configuration that is allowed."""
    for algorithm in ("grpo", "gspo", "ppo", "trpo", "rft", "dpo", "reinforce"):
        config = TrainingConfig.from_profile("balanced", algorithm=algorithm, batch_size=64)
        now = Settings(config, 1.0)
        for name in {rule.setting for rule in RULES}:
            if now.can_move(name):
                value = now.value(name)
                assert now.moved(name, 2 * value or 1.0).value(name) == (2 * value or 1.0)
    ppo = Settings(TrainingConfig.from_profile("balanced", algorithm="ppo"), 1.0)
    assert not ppo.can_move("num_generations")


def test_a_resumed_run_makes_the_same_moves():
    run = rows(*[{"zero_variance_share": 1.0, "updated": False}] * 12)
    whole, first, second = (Adjuster(settings(temperature=0.3), 1.0) for _ in range(3))
    play(whole, run)
    play(first, run[:7])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.settings == first.settings
    assert second.settings.temperature == 1.0
    for step in range(8, 13):
        second.after(run[:step])
    assert second.moves == whole.moves


def test_moves_are_told_from_the_rows():
    run = rows(*[{"step_share": 0.5}] * 3)
    move = Adjuster(settings(), 1.0).after(run)
    run[2]["adjustments"] = [move.to_dict()]
    assert told(json.loads(json.dumps(run))) == [
        "adjusted after step 3: learning_rate 0.064 -> 0.032, because the updates of the last 3 steps would have "
        "changed the policy too much at once, and at most 0.5 of one was made"
    ]


def test_every_move_gives_the_run_new_patience():
    judge = Judge(3, solved=None)
    for step in range(1, 10):
        judge.after({"step": step, "updated": False, "reward_mean": 0.0, "eval_reward_mean": 0.0 if step < 3 else None})
    judge.renew()
    assert (judge.flat.count, judge.early.without_improvement) == (0, 0)
    assert judge.early.best_step == 1


def group(name, *rewards):
    return TrajectoryGroup(name, [MultiTurnTrajectory(name, reward=reward) for reward in rewards])


@pytest.mark.parametrize(("flat", "rests"), [(2, False), (3, True)])
def test_a_scenario_rests_every_other_round_after_three_equal_groups(flat, rests):
    order = SeededOrder([Scenario(id=name, user_responses=("Hi",)) for name in "abcd"], 0)
    curriculum = Curriculum(solved=1.0)
    curriculum.rests = True
    for _ in range(flat):
        curriculum.note([group("a", 0.0, 0.0), group("b", 1.0, 1.0), group("c", 0.0, 1.0), group("d", 0.0, 0.0)])
    curriculum.note([group("d", 0.5, 0.0)])  # it taught something again
    drawn, position, seen = [], 0, 0
    while position < 16:
        chosen, position = curriculum.draw(order, position, 1)
        drawn.append(chosen[0].id)
        seen += 1
    assert drawn.count("a") == (2 if rests else 4)
    assert [drawn.count(name) for name in "bcd"] == [4, 4, 4]
    resumed = Curriculum(solved=1.0)
    resumed.rests = True
    resumed.load_state_dict(json.loads(json.dumps(curriculum.state_dict())))
    assert resumed.draw(order, 4, 3) == curriculum.draw(order, 4, 3)


def test_where_everybody_would_rest_nobody_does():
    order = SeededOrder([Scenario(id=name, user_responses=("Hi",)) for name in "ab"], 0)
    curriculum = Curriculum()
    curriculum.rests = True
    for _ in range(3):
        curriculum.note([group("a", 0.0, 0.0), group("b", 0.0, 0.0)])
    chosen, position = curriculum.draw(order, 2, 3)
    assert len(chosen) == 3
    assert position == 7
