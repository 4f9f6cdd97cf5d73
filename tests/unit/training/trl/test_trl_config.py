"""`TRLGRPOConfig`: the documented fields and defaults, what is refused, what is advised."""

import math
import os
import subprocess
import sys

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.training import TRLGRPOConfig

DOCUMENTED = {
    "model_name": "openai/gpt-oss-120b",
    "learning_rate": 5e-6,
    "batch_size": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "num_generations": 4,
    "beta": 0.0,
    "lora_r": 16,
    "lora_alpha": 32,
}

GUIDE = {
    "model_name": "openai/gpt-oss-120b",
    "output_dir": "./outputs/custom_training",
    "num_episodes": 1500,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "learning_rate": 5e-6,
    "beta": 0.01,
    "num_generations": 4,
    "num_iterations": 1,
    "use_lora": True,
    "lora_r": 32,
    "lora_alpha": 64,
    "lora_dropout": 0.1,
    "gradient_checkpointing": True,
    "bf16": True,
    "temperature": 0.8,
    "top_p": 0.95,
    "max_prompt_length": 256,
    "max_completion_length": 256,
}


def test_the_defaults_are_the_documented_ones():
    config = TRLGRPOConfig()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED


def test_the_guides_config_is_accepted_as_it_is_written():
    config = TRLGRPOConfig(**GUIDE)
    assert {name: getattr(config, name) for name in GUIDE} == GUIDE


@pytest.mark.parametrize(
    "fields",
    [
        {},
        *({name: value} for name, value in GUIDE.items()),
        {"fp16": True},
        {"use_8bit": True},
        {"use_4bit": True},
        {"device_map": "auto", "offload_folder": "./offload"},
        {"save_steps": 50},
        {"batch_size": 2},
    ],
)
def test_any_subset_of_the_fields_makes_a_config(fields):
    config = TRLGRPOConfig(**fields)
    assert {name: getattr(config, name) for name in fields} == fields


def test_fp16_alone_takes_the_place_of_the_default_bf16():
    config = TRLGRPOConfig(fp16=True)
    assert (config.bf16, config.fp16) == (False, True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rte": 1e-5}, 'learning_rte is not a known key.\n  did you mean "learning_rate"'),
        ({"learning_rate": -1e-5}, "learning_rate is -1e-05; it must be greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate is NaN; want a finite number"),
        ({"num_episodes": 0}, "num_episodes is 0; it must be at least 1"),
        ({"num_episodes": 2.5}, "num_episodes is 2.5; want a whole number"),
        ({"num_generations": 1}, "num_generations is 1; it must be at least 2"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"beta": -0.1}, "beta is -0.1; it must be at least 0"),
        ({"temperature": 0}, "temperature is 0; it must be greater than 0"),
        ({"top_p": 1.5}, "top_p is 1.5; it must be at most 1"),
        ({"lora_dropout": 1}, "lora_dropout is 1; it must be less than 1"),
        ({"lora_r": True}, "lora_r is true: want a number"),
        ({"output_dir": " "}, "want a name that is not empty"),
        ({"loss_type": "dap"}, 'did you mean "dapo"'),
        ({"bf16": True, "fp16": True}, "bf16 and fp16 are both true"),
        ({"use_8bit": True, "use_4bit": True}, "use_8bit and use_4bit are both true"),
        ({"use_8bit": True, "use_lora": False}, "use_8bit needs use_lora"),
        ({"use_4bit": True, "use_lora": False}, "use_4bit needs use_lora"),
        ({"batch_size": 2, "per_device_train_batch_size": 2}, "another name of per_device_train_batch_size"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_and_the_value(fields, words):
    with pytest.raises(ConfigError) as caught:
        TRLGRPOConfig(**fields)
    assert words in str(caught.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        TRLGRPOConfig(beta=-1, lora_r=0, nonsense=1)
    assert len(caught.value.problems) == 3


ON_THE_EDGE = {
    "learning_rate": (1e-6, 1e-5),
    "per_device_train_batch_size": (1, 4),
    "gradient_accumulation_steps": (8, 32),
    "num_generations": (2, 8),
    "beta": (0.0, 0.1),
    "lora_r": (8, 64),
    "lora_alpha": (16, 128),
}
OUTSIDE = {
    "learning_rate": (9e-7, 1.1e-5),
    "per_device_train_batch_size": (5,),
    "gradient_accumulation_steps": (7, 33),
    "num_generations": (9,),
    "beta": (0.11,),
    "lora_r": (7, 65),
    "lora_alpha": (15, 129),
}


def unusual(config):
    return [note for note in config.validate() if "recommended is" in note]


def test_the_defaults_are_inside_the_recommended_ranges():
    assert unusual(TRLGRPOConfig()) == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, both in ON_THE_EDGE.items() for value in both])
def test_both_ends_of_a_recommended_range_are_inside(name, value):
    assert unusual(TRLGRPOConfig(**{name: value})) == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, both in OUTSIDE.items() for value in both])
def test_a_value_outside_a_recommended_range_is_told_with_the_range(name, value):
    low, high = ON_THE_EDGE[name]
    assert unusual(TRLGRPOConfig(**{name: value})) == [f"{name} is {value:g}; recommended is {low:g} to {high:g}"]


def test_ranges_of_adapters_are_not_told_where_there_are_none():
    notes = TRLGRPOConfig(use_lora=False, lora_r=4, learning_rate=5e-6).validate()
    assert unusual(TRLGRPOConfig(use_lora=False, lora_r=4)) == []
    assert "lora_r: no effect, because use_lora is false" in notes


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"offload_folder": "./offload", "device_map": "auto"}, "offload_folder has no effect"),
        ({"lora_dropout": 0.1}, "conversations are held without"),
        ({"top_p": 0.95}, "training samples untruncated"),
        ({"num_episodes": 1000}, "1008 episodes will be held"),
        ({"num_iterations": 2}, "each round is used for 2 updates"),
    ],
)
def test_what_has_less_effect_than_a_reader_may_think_is_told(fields, words):
    assert any(words in note for note in TRLGRPOConfig(**fields).validate())


def test_a_precision_that_the_machine_lacks_is_off_and_said(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "bf16 is off: it needs a CUDA GPU, and the model is on cpu" in TRLGRPOConfig(bf16=True).validate()
    assert "fp16 is off: it needs a CUDA GPU, and the model is on cpu" in TRLGRPOConfig(fp16=True).validate()
    assert not any(" is off" in note for note in TRLGRPOConfig(bf16=False).validate())


def test_rounded_weights_say_what_they_lack_or_cost_here(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for reason, words in ((None, "takes more memory, not less"), ("needs bitsandbytes", "use_8bit needs bitsandbytes")):
        monkeypatch.setattr("stateset_agents.models.quantized.why_not", lambda bits, device, found=reason: found)
        (note,) = [note for note in TRLGRPOConfig(use_8bit=True).validate() if "use_8bit" in note]
        assert words in note


def test_advice_stops_nothing():
    assert any('device_map is "balanced"' in note for note in TRLGRPOConfig(device_map="balanced").validate())


VARIABLES = {
    "MODEL_NAME": ("model_name", "tiny", "tiny"),
    "NUM_EPISODES": ("num_episodes", "2000", 2000),
    "BATCH_SIZE": ("batch_size", "2", 2),
    "LEARNING_RATE": ("learning_rate", "3e-6", 3e-6),
    "GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", "8", 8),
    "USE_LORA": ("use_lora", "false", False),
    "LORA_R": ("lora_r", "8", 8),
    "LORA_ALPHA": ("lora_alpha", "16", 16),
    "BETA": ("beta", "0.05", 0.05),
    "NUM_GENERATIONS": ("num_generations", "8", 8),
    "GRADIENT_CHECKPOINTING": ("gradient_checkpointing", "false", False),
    "USE_BF16": ("bf16", "0", False),
    "OUTPUT_DIR": ("output_dir", "./outputs/my_training", "./outputs/my_training"),
    "WANDB_PROJECT": ("wandb_project", "my-grpo-project", "my-grpo-project"),
    "WANDB_ENTITY": ("wandb_entity", "team", "team"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_documented_variable_sets_its_field(variable):
    field, text, value = VARIABLES[variable]
    assert getattr(TRLGRPOConfig.from_env({variable: text}), field) == value
    assert getattr(TRLGRPOConfig(), field) != value


def test_variables_of_the_process_are_read_where_none_are_given(monkeypatch):
    monkeypatch.setenv("LORA_R", "24")
    assert TRLGRPOConfig.from_env().lora_r == 24


def test_an_empty_variable_counts_as_not_set():
    assert TRLGRPOConfig.from_env({"LORA_R": "", "USE_LORA": " ", "QUICK_MODE": ""}) == TRLGRPOConfig()


def test_a_variable_wins_over_a_default_of_the_caller():
    assert TRLGRPOConfig.from_env({"OUTPUT_DIR": "there"}, output_dir="here").output_dir == "there"
    assert TRLGRPOConfig.from_env({}, output_dir="here").output_dir == "here"


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("BATCH_SIZE", "two", 'BATCH_SIZE is "two"; want a whole number'),
        ("LEARNING_RATE", "-1", 'LEARNING_RATE is "-1"; it must be greater than 0'),
        ("LEARNING_RATE", "nan", 'LEARNING_RATE is "nan"; want a finite number'),
        ("USE_LORA", "maybe", 'USE_LORA is "maybe"; want true or false'),
        ("QUICK_MODE", "maybe", 'QUICK_MODE is "maybe"; want true or false'),
        ("NUM_GENERATIONS", "1", 'NUM_GENERATIONS is "1"; it must be at least 2'),
    ],
)
def test_a_bad_variable_is_named(variable, text, words):
    with pytest.raises(ConfigError) as caught:
        TRLGRPOConfig.from_env({variable: text})
    assert words in str(caught.value)


def test_quick_mode_changes_defaults_and_nothing_that_is_set():
    quick = TRLGRPOConfig.from_env({"QUICK_MODE": "true", "NUM_EPISODES": "64"})
    assert (quick.model_name, quick.num_episodes) == ("tiny", 64)
    assert TRLGRPOConfig.from_env({"QUICK_MODE": "false"}) == TRLGRPOConfig()


def test_the_config_loads_neither_torch_nor_trl():
    code = (
        "from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo, train_customer_service_with_trl\n"
        "TRLGRPOConfig(bf16=True)\n"
        "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) & {"torch", "transformers", "trl", "datasets", "peft"} == set()
