"""Adapters leave the base alone, and what is saved loads anywhere and computes the same."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stateset_agents.core.errors import ModelError
from stateset_agents.models import (
    attach_lora,
    base_policy,
    load_model,
    merged_state_dict,
    save_model_folder,
    trainable_parameters,
)

IDS = torch.tensor([[5, 60, 300, 9, 1, 0, 77]])


def logits(loaded) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(IDS).logits


def moved(loaded, size: float = 0.05):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable_parameters(loaded).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return loaded


def test_fresh_adapters_change_nothing_and_only_they_are_trainable():
    before = logits(load_model("tiny"))
    loaded = attach_lora(load_model("tiny"), r=4)
    assert torch.equal(logits(loaded), before)
    names = trainable_parameters(loaded)
    assert len(names) == 2 * 7 * 2
    assert all("lora_" in name for name in names)
    assert "lm_head" not in " ".join(names)


def test_adapters_are_float32_on_a_bf16_base_and_move_under_a_small_step():
    loaded = attach_lora(load_model("tiny", dtype="bfloat16"))
    optimizer = torch.optim.AdamW(trainable_parameters(loaded).values(), lr=5e-6, weight_decay=0.0)
    before = {name: parameter.detach().clone() for name, parameter in trainable_parameters(loaded).items()}
    for _ in range(2):
        loaded.model(IDS).logits.float().log_softmax(-1)[..., 3].sum().backward()
        optimizer.step()
    assert loaded.dtype == torch.bfloat16
    for name, parameter in trainable_parameters(loaded).items():
        assert parameter.dtype == torch.float32
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_saved_model_computes_what_the_one_in_memory_does_in_every_dtype(tmp_path, dtype):
    """Mutation: the rotation frequencies rounded with the weights, which reading a folder never does."""
    loaded = load_model("tiny", dtype=dtype)
    ids = torch.arange(100)[None]
    saved = AutoModelForCausalLM.from_pretrained(save_model_folder(loaded, tmp_path / "saved"), dtype="auto")
    with torch.no_grad():
        assert torch.equal(saved(ids).logits, loaded.model(ids).logits)


def test_adapters_start_from_their_seed_and_leave_the_global_random_state_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = trainable_parameters(attach_lora(load_model("tiny"), seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    same = trainable_parameters(attach_lora(load_model("tiny"), seed=5))
    other = trainable_parameters(attach_lora(load_model("tiny"), seed=6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_base_policy_is_the_model_before_training_and_comes_back_on_error():
    before = logits(load_model("tiny"))
    loaded = moved(attach_lora(load_model("tiny")))
    after = logits(loaded)
    assert not torch.equal(after, before)
    with base_policy(loaded) as reference:
        assert torch.equal(logits(reference), before)
    assert torch.equal(logits(loaded), after)
    with pytest.raises(KeyError), base_policy(loaded):
        raise KeyError
    assert torch.equal(logits(loaded), after)
    assert all(parameter.requires_grad for parameter in trainable_parameters(loaded).values())
    assert len(trainable_parameters(loaded)) == 28


def test_without_adapters_there_is_no_base_policy():
    with pytest.raises(ModelError, match="no LoRA adapters"), base_policy(load_model("tiny")):
        pass


def test_attaching_twice_or_to_unknown_layers_is_an_error():
    loaded = attach_lora(load_model("tiny"), target_modules=["q_proj"])
    assert len(trainable_parameters(loaded)) == 4
    with pytest.raises(ModelError, match="already has LoRA adapters"):
        attach_lora(loaded)
    with pytest.raises(ModelError, match=r"Its linear layers: down_proj, gate_proj, .*q_proj"):
        attach_lora(load_model("tiny"), target_modules=["query"])


def test_the_output_head_takes_no_adapter_because_sampler_and_learner_would_pass_it_by():
    loaded = load_model("tiny")
    with pytest.raises(ModelError, match="lm_head, the output head of tiny"):
        attach_lora(loaded, target_modules=["q_proj", "lm_head"])
    assert not any("lora_" in name for name, _ in loaded.model.named_parameters())


def test_a_merged_save_equals_the_adapters_and_reloads_without_further_steps(tmp_path):
    loaded = moved(attach_lora(load_model("tiny"), r=4, alpha=16))
    before, names = logits(loaded), loaded.model.state_dict().keys()
    save_model_folder(loaded, tmp_path)
    assert torch.equal(logits(loaded), before)
    assert loaded.model.state_dict().keys() == names

    model = AutoModelForCausalLM.from_pretrained(str(tmp_path), trust_remote_code=False, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=False, use_safetensors=True)
    with torch.no_grad():
        assert (model(IDS).logits - before).abs().max() < 1e-4
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.eos_token_id == 1
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_a_bf16_model_keeps_its_dtype_and_masters_keep_theirs(tmp_path):
    loaded = moved(attach_lora(load_model("tiny", dtype="bfloat16")))
    assert {tensor.dtype for tensor in merged_state_dict(loaded).values()} == {torch.bfloat16}
    save_model_folder(loaded, tmp_path / "own")
    assert load_model(str(tmp_path / "own"), dtype="bfloat16").dtype == torch.bfloat16
    assert '"dtype": "bfloat16"' in (tmp_path / "own" / "config.json").read_text()

    plain = load_model("tiny", dtype="bfloat16")
    masters = {name: tensor.float() + 1e-4 for name, tensor in plain.model.state_dict().items()}
    save_model_folder(plain, tmp_path / "masters", state_dict=masters)
    reloaded = load_model(str(tmp_path / "masters"))
    assert torch.equal(reloaded.model.state_dict()["model.norm.weight"], masters["model.norm.weight"])
    assert '"dtype": "float32"' in (tmp_path / "masters" / "config.json").read_text()
    assert plain.model.config.dtype == torch.bfloat16


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    loaded = load_model("tiny")
    with torch.no_grad():
        loaded.model.model.norm.weight[3] = float("nan")
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds NaN"):
        save_model_folder(loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_saving_full_weights_twice_gives_equal_files(tmp_path):
    for name in ("one", "two"):
        save_model_folder(load_model("tiny"), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
