import pytest

from stateset_agents.training import TRLGRPOConfig
from stateset_agents.training.trl.plan import make_plan


def numbers(**fields):
    plan = make_plan(TRLGRPOConfig(**fields))
    return plan.accumulation, plan.groups, plan.conversations, plan.rounds, plan.steps


def test_the_documented_numbers_are_four_scenarios_of_four_conversations_a_step():
    assert numbers(num_episodes=1600) == (16, 4, 16, 100, 100)
    assert make_plan(TRLGRPOConfig(num_episodes=1600)).notes == ()


def test_episodes_are_rounded_up_to_whole_rounds_and_said():
    assert numbers(num_episodes=1000) == (16, 4, 16, 63, 63)
    (note,) = make_plan(TRLGRPOConfig(num_episodes=1000)).notes
    assert "1008 episodes will be held" in note


@pytest.mark.parametrize(
    ("batch", "accumulation", "size", "expected"),
    [(1, 16, 4, 16), (2, 3, 4, 4), (3, 1, 4, 4), (4, 1, 4, 1), (6, 1, 4, 2), (1, 16, 6, 18)],
)
def test_passes_are_rounded_up_until_a_round_holds_whole_groups(batch, accumulation, size, expected):
    config = TRLGRPOConfig(batch_size=batch, gradient_accumulation_steps=accumulation, num_generations=size)
    plan = make_plan(config)
    assert plan.accumulation == expected
    assert plan.conversations == batch * expected == plan.groups * size


def test_each_round_is_used_for_as_many_steps_as_there_are_iterations():
    assert numbers(num_episodes=32, num_iterations=3) == (16, 4, 16, 2, 6)
