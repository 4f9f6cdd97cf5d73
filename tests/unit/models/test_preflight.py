"""A model that cannot fit is refused before a byte of it is read, and the message says what would fit."""

import sys

import pytest
import torch

from stateset_agents.core.errors import ModelError
from stateset_agents.models import cache_budget, load_model, preflight, save_model_folder
from stateset_agents.models.devices import choose_device
from stateset_agents.models.facts import KNOWN, ModelFacts, facts_of_folder
from stateset_agents.models.folders import read_config
from stateset_agents.models.memory import GIB, Memory, cgroup_limits, ram, size
from stateset_agents.models.preflight import choose_dtype, estimate
from stateset_agents.models.tensors import first_non_finite

LAPTOP = Memory("RAM", 12 * GIB, 16 * GIB)


def test_the_documented_default_is_refused_in_one_message_that_says_what_would_fit():
    with pytest.raises(ModelError) as caught:
        preflight("openai/gpt-oss-120b", training=True, memory=LAPTOP)
    message = str(caught.value)
    assert (
        "openai/gpt-oss-120b (117 B parameters) does not fit here: training all its weights needs about 1.9 TiB"
        in message
    )
    assert "this machine has 12.0 GiB of RAM free (16.0 GiB in all)" in message
    assert "With LoRA it needs about 220.2 GiB, which does not fit either." in message
    assert "What would fit: smollm2-135m-instruct, tiny, stub://echo" in message
    assert "\n" not in message


def test_loading_the_documented_default_ends_the_same_way_and_at_once():
    with pytest.raises(ModelError, match="does not fit here: running it needs about"):
        load_model("openai/gpt-oss-120b", device="cpu")


def test_only_what_fits_is_suggested():
    with pytest.raises(ModelError, match=r"What would fit: tiny, stub://echo") as caught:
        preflight("smollm2-135m-instruct", training=True, memory=Memory("RAM", int(1.5 * GIB), 2 * GIB))
    assert "With LoRA it needs" in str(caught.value)


def test_memory_of_full_training_is_eighteen_bytes_a_parameter_and_the_cache():
    facts = ModelFacts(parameters=1_000_000, kv_elements_per_token=100)
    needed = estimate(facts, training=True, lora_r=None, dtype="bfloat16", memory=LAPTOP, context_tokens=10)
    assert (needed.weights, needed.training, needed.cache) == (2_000_000, 16_000_000, 2_000)
    assert needed.total == 18_002_000 + GIB


def test_memory_of_lora_training_is_the_weights_and_little_more():
    needed = preflight("smollm2-135m-instruct", training=True, lora_r=16, memory=LAPTOP)
    assert needed.weights == 4 * 134_515_008
    assert 60e6 < needed.training < 100e6


def test_rounded_weights_need_room_for_their_bits_and_a_cache_as_before():
    facts = ModelFacts(parameters=1_000_000, kv_elements_per_token=100)
    plain, rounded = (
        estimate(facts, training=True, lora_r=8, bits=bits, dtype="bfloat16", memory=LAPTOP, context_tokens=10)
        for bits in (None, 4)
    )
    assert (plain.weights, rounded.weights) == (2_000_000, 500_000)
    assert (plain.cache, plain.training) == (rounded.cache, rounded.training)


def test_a_stub_needs_nothing():
    assert preflight("stub://echo", training=True) is None


@pytest.mark.parametrize(
    ("dtype", "parameters", "stored", "on_gpu", "expected"),
    [
        ("auto", 135_000_000, "bfloat16", False, "float32"),
        ("auto", 135_000_000, "bfloat16", True, "bfloat16"),
        ("auto", 7_000_000_000, "bfloat16", False, "bfloat16"),
        ("auto", 7_000_000_000, "", False, "bfloat16"),
        ("float16", 7_000_000_000, "bfloat16", True, "float16"),
    ],
)
def test_what_auto_means(dtype, parameters, stored, on_gpu, expected):
    assert choose_dtype(dtype, ModelFacts(parameters, stored), on_gpu=on_gpu) == expected


def test_parameters_of_a_folder_are_counted_from_headers(tmp_path):
    folder = save_model_folder(load_model("tiny"), tmp_path)
    assert facts_of_folder(folder, read_config(folder)) == KNOWN["tiny"]


def test_known_sizes_are_those_of_the_real_models():
    loaded = load_model("tiny")
    assert KNOWN["tiny"].parameters == sum(parameter.numel() for parameter in loaded.model.parameters())


def test_facts_of_a_multimodal_config_are_those_of_its_text_model():
    config = {"text_config": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}}
    assert ModelFacts.of(config, 10, "float32").kv_elements_per_token == 2 * 3 * 4 * 16


def test_a_container_limit_counts_without_its_page_cache(tmp_path):
    group = tmp_path / "cgroup" / "pod" / "box"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000\n")
    (group.parent / "memory.max").write_text("10000\n")
    (group.parent / "memory.current").write_text("6000\n")
    (group.parent / "memory.stat").write_text("anon 5000\ninactive_file 1000\n")
    member = tmp_path / "self"
    member.write_text("0::/pod/box\n")
    assert cgroup_limits(tmp_path / "cgroup", member) == [(10_000, 5_000)]


def test_a_version_1_limit_is_found_too(tmp_path):
    group = tmp_path / "memory"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("8000")
    (group / "memory.usage_in_bytes").write_text("3000")
    member = tmp_path / "self"
    member.write_text("4:cpu,cpuacct:/x\n3:memory:/docker/abc\n")
    assert cgroup_limits(tmp_path, member) == [(8_000, 3_000)]


def test_no_control_groups_is_no_limit(tmp_path):
    assert cgroup_limits(tmp_path, tmp_path / "none") == []


def test_this_machine_has_memory():
    memory = ram()
    assert 0 < memory.free <= memory.total


def test_sizes_are_written_for_a_reader():
    assert [size(5 * 1024**2), size(2.5 * GIB), size(2048 * GIB)] == ["5 MiB", "2.5 GiB", "2.0 TiB"]
    assert [size(0), size(512), size(4000)] == ["0 MiB", "0.5 KiB", "3.9 KiB"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, float("nan"), float("inf")], "w holds NaN"),
        ([1.0, float("-inf")], "w holds an infinity"),
        ([3.4e38, -3.4e38], None),
        ([], None),
    ],
)
def test_numbers_that_are_not_finite_are_found_by_name(values, found):
    assert first_non_finite({"ids": torch.tensor([2**62]), "w": torch.tensor(values)}) == found
    assert first_non_finite({"w": torch.tensor([1.0, float("nan")]).to(torch.float8_e5m2)}) == "w holds NaN"


HUGE = Memory("RAM", 4000 * GIB, 4000 * GIB)


@pytest.mark.parametrize("name", ["openai/gpt-oss-120b", "openai/gpt-oss-20b"])
def test_a_model_that_the_engine_cannot_drive_is_refused_before_it_is_downloaded(name):
    with pytest.raises(ModelError, match=f"{name} is a gpt_oss model, whose attention sinks the engine does not comp"):
        preflight(name, training=False, memory=HUGE)
    with pytest.raises(
        ModelError, match=r"does not fit here.*On a larger machine it would be refused too: it is a gpt_"
    ):
        preflight(name, training=False, memory=Memory("RAM", GIB, GIB))


def test_the_architecture_of_a_folder_is_read_from_its_config(tmp_path):
    folder = save_model_folder(load_model("tiny"), tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "gemma2"'))
    with pytest.raises(ModelError, match="is a gemma2 model, whose capped attention scores"):
        preflight(str(folder), training=False)


def test_a_device_that_is_not_there_is_a_model_error_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ModelError, match=f'device is "{device}", but .*; take cpu'):
            preflight("tiny", training=True, device=device)
        with pytest.raises(ModelError, match=f'device is "{device}"'):
            load_model("tiny", device=device)
    with pytest.raises(ModelError, match='device is "tpu", but there is none of that name here; take cpu'):
        choose_device("tpu")


def test_no_device_means_the_first_cuda_gpu_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (choose_device(None), choose_device("cpu")) == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (choose_device(None), choose_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(ModelError, match=r'device is "cuda:2", but .*take cpu or cuda:0 or cuda:1'):
        choose_device("cuda:2")


def test_the_cache_may_take_a_quarter_of_what_is_free(monkeypatch):
    """tiny keeps 2 (keys and values) x 2 layers x 2 heads x 16 numbers of 4 bytes for a token: 512 bytes."""
    loaded = load_model("tiny")
    for free, tokens in ((512 * 4 * 20_000, 20_000), (1, 16 * 1024)):
        monkeypatch.setattr(
            sys.modules["stateset_agents.models.preflight"], "memory_of", lambda _, free=free: Memory("RAM", free, free)
        )
        assert cache_budget(loaded) == tokens
