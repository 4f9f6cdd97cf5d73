"""Algorithms by name, and settings that do not go with them."""

import pytest

from stateset_agents.config.algorithms import CHECKED, OFF, RECIPES
from stateset_agents.config.profiles import PROFILES
from stateset_agents.config.schema import AgentSection, EnvironmentSection
from stateset_agents.config.training import TrainingConfig
from stateset_agents.config.unused import unused_keys
from stateset_agents.core.errors import ConfigError

EACH = {"reward_aggregation": "normalize_then_sum"}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("algorithm", RECIPES)
@pytest.mark.parametrize("lora", [True, False])
def test_every_algorithm_goes_with_every_profile(algorithm, profile, lora):
    file = {"data_file": "answers.jsonl"} if RECIPES[algorithm].baseline == "none" else {}
    config = TrainingConfig.from_profile(profile, algorithm=algorithm, lora=lora, **file)
    assert config.recipe is RECIPES[algorithm]
    for name, value in RECIPES[algorithm].values.items():
        assert getattr(config, name) == value


def test_what_a_recipe_names_exists():
    fields = set(TrainingConfig.model_fields)
    assert set(OFF) <= fields
    for recipe in RECIPES.values():
        assert recipe.uses <= CHECKED
        assert set(recipe.values) <= fields


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm": "gppo"}, 'did you mean "ppo"'),
        ({"algorithm": "gspo", "importance_level": "token"}, "for tokens take grpo"),
        ({"algorithm": "gspo", "loss_normalization": "token"}, "it counts once"),
        ({"algorithm": "trpo", "mixed_precision": True}, "lose all their digits in bfloat16"),
        ({"algorithm": "grpo", "gae_lambda": 0.9}, "gae_lambda has no effect on grpo; it belongs to ppo, a2c"),
        ({"algorithm": "grpo", "credit": "token"}, "no value head"),
        ({"algorithm": "ppo", "credit": "trajectory"}, "estimates values along it"),
        ({"algorithm": "ppo", "scale_rewards": "std"}, "compares with no group"),
        ({"algorithm": "a2c", "num_iterations": 2}, "fresh conversations"),
        ({"algorithm": "dpo", "beta": 0}, "beta is 0"),
        ({"algorithm": "grpo", "kl_in": "reward", "beta": 0.1}, "only k1 is unbiased"),
        ({"algorithm": "grpo", "kl_estimator": "k1", "beta": 0.1}, "its gradient is noise"),
        ({"algorithm": "reinforce", "clip_low": 0.1}, "clip_low has no effect on reinforce"),
        ({"algorithm": "dpo", "label_smoothing": 0.1}, "label_smoothing has no effect on preference_loss sigmoid"),
        ({"algorithm": "dpo", "preference_loss": "exo_pair"}, "exo_pair takes its logarithm"),
        (
            {"algorithm": "dpo", "preference_loss": "aot", "preference_divergence": "js"},
            "preference_divergence has no effect on preference_loss aot",
        ),
        ({"algorithm": "dpo", "preference_alpha": 0.3}, "belongs to preference_divergence 'alpha'"),
        ({"algorithm": "vespo", "sampler_correction": "sequence_truncate"}, "take token_truncate or token_mask"),
        ({"algorithm": "grpo", "sampler_correction_floor": 0.5}, "sampler_correction, which is 'none'"),
        ({"algorithm": "grpo", "data_file": "a.jsonl"}, "data_file has no effect on grpo; it belongs to sft, dpo"),
        ({"algorithm": "rft", "data_file": "a.jsonl"}, "data_file has no effect on rft"),
        ({"algorithm": "sft"}, "data_file is missing: sft learns from recorded conversations"),
        ({"algorithm": "sft", "data_file": "a.jsonl", "num_generations": 2}, "num_generations has no effect on sft"),
        ({"algorithm": "sft", "data_file": "a.jsonl", "beta": 0.1}, "beta has no effect on sft"),
        ({"algorithm": "sft", "data_file": "a.jsonl", "num_iterations": 2}, "raise num_episodes"),
        ({"algorithm": "dpo", "data_file": "a.jsonl", "num_generations": 2}, "each record is a pair"),
        ({**EACH, "credit": "turn"}, "credit is 'turn' with"),
        ({**EACH, "kl_in": "reward", "kl_estimator": "k1", "beta": 0.1}, "kl_in is 'reward' with"),
        ({**EACH, "overlong_share": 0.1}, "overlong_share is 0.1 with"),
        ({**EACH, "scale_rewards": "none"}, "scale_rewards is 'none' with"),
        ({**EACH, "scale_rewards": "batch"}, "scale_rewards is 'batch' with"),
        ({**EACH, "dynamic_sampling": 2}, "dynamic_sampling is 2 with"),
        (
            {"algorithm": "sft", "data_file": "a.jsonl", "loss_normalization": "constant"},
            "no most that it could have sampled",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(settings, words):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_profile("balanced", **settings)
    assert words in str(caught.value)


MASKED = {"grpo", "dr_grpo", "bnpo", "dapo", "gspo", "cispo", "sapo", "luspo", "vespo"}


@pytest.mark.parametrize("algorithm", RECIPES)
@pytest.mark.parametrize(
    ("settings", "users"),
    [
        ({"off_policy_threshold": 0.5}, MASKED),
        ({"top_entropy_share": 0.2}, MASKED),
        ({"preference_loss": "ipo"}, {"dpo"}),
        ({"label_smoothing": 0.1, "preference_loss": "robust"}, {"dpo"}),
        ({"preference_divergence": "js"}, {"dpo"}),
        ({"preference_alpha": 0.2, "preference_divergence": "alpha"}, {"dpo"}),
        ({"preference_tail": 0.5}, {"dpo"}),
        ({"preference_sft_weight": 0.5}, {"dpo"}),
        (
            {"sampler_correction_floor": 0.5, "sampler_correction": "token_mask"},
            set(RECIPES) - {"trpo", "sft", "dpo", "rft"},
        ),
    ],
    ids=lambda one: " ".join(sorted(one)),
)
def test_a_setting_belongs_to_its_algorithms_and_is_refused_by_the_others(algorithm, settings, users):
    if algorithm in users:
        TrainingConfig.from_profile("balanced", algorithm=algorithm, **settings)
        return
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} has no effect on {algorithm}"):
        TrainingConfig.from_profile("balanced", algorithm=algorithm, **settings)


def test_a_natural_step_has_no_learning_rate_and_says_so():
    config = TrainingConfig.from_profile("balanced", algorithm="trpo", learning_rate=1e-4)
    given = {"training.learning_rate": "x", "training.max_kl": "x"}
    told = unused_keys(AgentSection(), EnvironmentSection(), config, given)
    assert told == [("training.learning_rate", "the length of a natural step follows from max_kl")]


def test_a_step_of_a_file_is_made_of_records_and_a_pair_is_two_conversations():
    """Mutations: records rounded up to groups; a pass of 4 conversations taken for one of 4 pairs."""
    sizes = {"num_episodes": 100, "batch_size": 4, "gradient_accumulation_steps": 3, "data_file": "a.jsonl"}
    for algorithm, passes in (("sft", 3), ("dpo", 6)):
        plan = TrainingConfig.from_profile("balanced", algorithm=algorithm, **sizes).plan
        assert (plan.groups_per_step, plan.conversations_per_step, plan.total_steps) == (12, 12, 9)
        assert plan.micro_batches_per_step == passes
        assert "108 records will be read: num_episodes = 100" in plan.notes[0]
