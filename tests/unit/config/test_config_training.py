"""Profiles, hyperparameters by name, and the arithmetic from episodes to steps."""

import typing

import pytest

from stateset_agents.config import PROFILES, TrainingConfig
from stateset_agents.config.layers import NULL_IS_A_VALUE
from stateset_agents.core.errors import ConfigError


def problems_of(**overrides):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_profile(**overrides)
    return caught.value.problems


def test_conservative_needs_less_memory_per_step_than_balanced_and_aggressive_the_most():
    conservative, balanced, aggressive = (PROFILES[name] for name in ("conservative", "balanced", "aggressive"))
    assert conservative.batch_size < balanced.batch_size < aggressive.batch_size
    assert conservative.gradient_accumulation_steps > balanced.gradient_accumulation_steps
    assert conservative.gradient_checkpointing
    assert not balanced.gradient_checkpointing


def test_no_profile_loads_a_reference_model():
    assert {TrainingConfig.from_profile(name).beta for name in PROFILES} == {0.0}


def test_a_step_grows_from_conservative_to_aggressive():
    rates = [TrainingConfig.from_profile(name).learning_rate for name in ("conservative", "balanced", "aggressive")]
    assert rates == [5e-6, 1e-5, 2e-5]


@pytest.mark.parametrize("lora", [True, {}, {"r": 4}])
def test_adapters_take_ten_times_the_learning_rate(lora):
    assert TrainingConfig.from_profile("balanced", lora=lora).learning_rate == pytest.approx(1e-4)


@pytest.mark.parametrize("lora", [None, False])
def test_without_adapters_all_weights_are_trained(lora):
    config = TrainingConfig.from_profile("balanced", lora=lora)
    assert config.lora is None
    assert config.learning_rate == 1e-5


def test_lora_true_means_rank_16_and_alpha_32():
    lora = TrainingConfig.from_profile("balanced", lora=True).lora
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (16, 32, 0.0, None)


def test_a_learning_rate_that_was_given_is_kept_with_adapters_too():
    assert TrainingConfig.from_profile("balanced", lora=True, learning_rate=3e-6).learning_rate == 3e-6


def test_the_overrides_of_the_usage_guide_are_taken():
    config = TrainingConfig.from_profile(
        "balanced", learning_rate=1e-5, num_generations=16, max_grad_norm=0.5, early_stopping=True, patience=30
    )
    assert (config.num_generations, config.max_grad_norm, config.patience) == (16, 0.5, 30)


def test_a_number_written_as_text_is_a_number():
    assert TrainingConfig.from_profile("balanced", learning_rate="5e-6").learning_rate == 5e-6


def test_an_unknown_name_is_refused_with_the_nearest_one():
    assert problems_of(learning_rat=1e-5) == (
        'config error: learning_rat is not a known key.\n  did you mean "learning_rate"?',
    )


def test_an_unknown_profile_is_refused_with_the_nearest_one():
    (problem,) = problems_of(profile="balancd")
    assert 'did you mean "balanced"?' in problem
    assert "conservative, balanced, aggressive, experimental" in problem


def test_a_group_of_one_is_refused_and_explained():
    (problem,) = problems_of(num_generations=1)
    assert "num_generations is 1; it must be at least 2" in problem
    assert "a group of one" in problem


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_episodes", 0, "at least 1"),
        ("num_episodes", -5, "at least 1"),
        ("num_episodes", 2.5, "whole number"),
        ("num_episodes", True, "want a number"),
        ("learning_rate", float("nan"), "finite"),
        ("learning_rate", float("inf"), "finite"),
        ("learning_rate", 0, "greater than 0"),
        ("learning_rate", "fast", "want a number"),
        ("clip_low", 1.0, "less than 1"),
        ("adam_beta2", 1, "less than 1"),
        ("early_stopping", "perhaps", "true or false"),
        ("lr_schedule", "cosin", 'did you mean "cosine"'),
        ("lora", 5, "mapping"),
        ("lora", {"rank": 4}, "known keys: r, alpha"),
        ("lora", {"target_modules": []}, "not empty"),
        ("beta", -0.1, "at least 0"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(key, value, words):
    (problem,) = problems_of(**{key: value})
    assert key in problem
    assert words in problem


def test_all_problems_are_told_at_once():
    assert len(problems_of(batch_size=0, beta=-1, nonsense=3)) == 3


def test_early_stopping_without_evaluations_is_a_contradiction():
    (problem,) = problems_of(early_stopping=True, eval_every=0)
    assert "eval_every is 0" in problem


def test_balanced_trains_two_groups_of_eight_a_step():
    plan = TrainingConfig.from_profile("balanced", num_episodes=1000).plan
    assert (plan.groups_per_step, plan.conversations_per_step, plan.micro_batches_per_step) == (2, 16, 2)
    assert (plan.total_steps, plan.total_episodes) == (63, 1008)
    assert (plan.save_every_steps, plan.eval_every_steps) == (7, 4)
    assert plan.notes == ("1008 episodes will be held: num_episodes = 1000, rounded up to 63 whole steps of 16.",)


def test_conversations_are_rounded_up_to_whole_groups_and_said_so():
    plan = TrainingConfig.from_profile(
        "balanced", batch_size=4, gradient_accumulation_steps=4, num_generations=6, num_episodes=36
    ).plan
    assert (plan.groups_per_step, plan.conversations_per_step, plan.micro_batches_per_step) == (3, 18, 5)
    assert "18 conversations" in plan.notes[0]
    assert plan.total_steps == 2


def test_a_warm_up_longer_than_a_tenth_of_the_run_is_shortened_and_said_so():
    plan = TrainingConfig.from_profile("balanced", num_episodes=640, warmup_steps=100).plan
    assert plan.total_steps == 40
    assert plan.warmup_steps == 4
    assert "4 steps instead of 100" in plan.notes[0]


def test_patience_counts_episodes_and_never_covers_fewer_than_three_evaluations():
    few = TrainingConfig.from_profile("balanced", early_stopping=True, patience=50, eval_every=50, num_episodes=1600)
    many = TrainingConfig.from_profile("balanced", early_stopping=True, patience=640, eval_every=64, num_episodes=1600)
    assert few.plan.patience_evaluations == 3
    assert "3 evaluations (192 episodes)" in few.plan.notes[-1]
    assert many.plan.patience_evaluations == 10
    assert many.plan.notes == ()


def test_zero_means_no_checkpoints_on_the_way_and_no_evaluations():
    plan = TrainingConfig.from_profile("balanced", save_every=0, eval_every=0).plan
    assert (plan.save_every_steps, plan.eval_every_steps) == (0, 0)


def test_a_tiny_run_still_has_one_step():
    plan = TrainingConfig.from_profile("aggressive", num_episodes=1).plan
    assert (plan.total_steps, plan.total_episodes, plan.warmup_steps) == (1, 32, 0)


def test_several_updates_per_batch_are_said():
    assert "2 updates" in TrainingConfig.from_profile("experimental", num_episodes=3200).plan.notes[-1]


def test_the_fingerprint_tells_what_is_learned_apart_and_is_blind_to_disk_and_speed():
    base = TrainingConfig.from_profile("balanced").fingerprint_fields()
    blind = {"save_every": 7, "keep_checkpoints": 1, "threads": 3, "max_concurrent": 2}
    assert TrainingConfig.from_profile("balanced", **blind).fingerprint_fields() == base
    assert TrainingConfig.from_profile("balanced", seed=1).fingerprint_fields() != base
    assert TrainingConfig.from_profile("balanced", lora={"r": 4}).fingerprint_fields()["lora"]["r"] == 4


def test_null_is_a_value_where_it_says_that_there_is_no_limit():
    """Those are the hyperparameters that may be null and are not by themselves."""
    config = TrainingConfig.from_profile("balanced")
    ppo, cispo = (TrainingConfig.from_profile("balanced", algorithm=name) for name in ("ppo", "cispo"))
    nullable = set()
    for name, field in TrainingConfig.model_fields.items():
        held = [getattr(one, name) for one in (config, ppo, cispo)]
        if type(None) in typing.get_args(field.annotation) and any(value is not None for value in held):
            nullable.add(name)
    assert nullable == NULL_IS_A_VALUE
