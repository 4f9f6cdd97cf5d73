from dataclasses import replace

import pytest

from stateset_agents import AgentConfig, ConversationEnvironment
from stateset_agents.models.facts import ModelFacts
from stateset_agents.models.memory import GIB, Memory
from stateset_agents.training import TRLGRPOConfig
from stateset_agents.training.trl.plan import make_plan
from stateset_agents.training.trl.step import step_of


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


def test_the_size_of_a_step_is_that_of_the_plan_and_the_scenarios():
    config = TRLGRPOConfig(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        num_generations=4,
        beta=0.1,
        max_completion_length=40,
    )
    environment = ConversationEnvironment([{"user_responses": ["x" * 40, "y" * 80]}], max_turns=2)
    size = step_of(config, AgentConfig("tiny", system_prompt="s" * 60), environment, "cpu")
    # An opening of 15 + 10 tokens; two turns of 20 tokens, half of what they may be, and a second line of 20; 5 more
    # around each message.
    assert (size.opening, size.rest) == (25 + 2 * 5, 60 + 3 * 5)
    # Three passes of two are no whole groups of four: four passes are.
    assert (size.per_pass, size.per_step, size.in_flight, size.group) == (2, 8, 8, 1)
    assert (size.half, size.adapters, size.reference, size.recomputes) == (False, True, True, True)
    facts, gpu = ModelFacts(1000, "float32", hidden=10, layers=4), Memory("a GPU", 8 * GIB, 8 * GIB)
    assert replace(size, half=True)(facts, gpu).copies == 0  # computed under autocast, of the weights as they are
