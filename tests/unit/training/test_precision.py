"""Float32 masters behind weights that compute in half precision."""

import pytest
import torch
from torch import nn

from stateset_agents.models import attach_lora, load_model
from stateset_agents.training.precision import MasterWeights

BF16 = torch.bfloat16
IDS = torch.tensor([[5, 60, 300, 9, 1, 0, 77]])


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def dtypes(model: nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters()}


def test_masters_keep_what_the_computing_copy_rounds_away():
    """0.05 lies between two bf16 numbers. Mutation: masters made after the cast."""
    model = one_weight(0.05)
    weights = MasterWeights(model, BF16)
    assert weights.masters[0].dtype == torch.float32
    assert weights.masters[0].item() == torch.tensor(0.05).item()
    assert model.weight.dtype == BF16
    assert model.weight.item() == 0.050048828125


def test_gradients_are_summed_in_float32_and_the_copy_s_are_freed():
    """1 + 2 ** -9 is 1 in bf16. Mutation: letting autograd sum them in the copy."""
    model = one_weight(0.05)
    weights = MasterWeights(model, BF16)
    for gradient in (1.0, 2.0**-9):
        model(torch.tensor([[gradient]], dtype=BF16)).sum().backward()
        assert model.weight.grad is None
    assert weights.masters[0].grad.dtype == torch.float32
    assert weights.masters[0].grad.item() == 1.0 + 2.0**-9


def test_small_steps_add_up_in_the_masters_and_would_be_lost_without_them():
    """Steps of 5e-6 at 0.05, where bf16 numbers lie 2.4e-4 apart. Mutation: publish that writes to the masters."""
    model, alone = one_weight(0.05), one_weight(0.05).to(BF16)
    weights = MasterWeights(model, BF16)
    start = model.weight.item()
    seen = set()
    for _ in range(100):
        weights.masters[0].sub_(5e-6)
        weights.publish()
        alone.weight.data.sub_(5e-6)
        seen.add(model.weight.item())
    assert weights.masters[0].item() == pytest.approx(0.05 - 100 * 5e-6, abs=1e-7)
    assert model.weight.item() == pytest.approx(0.0495, abs=1.3e-4)
    assert 2 <= len(seen) <= 4
    assert alone.weight.item() == start


def test_frozen_weights_are_cast_and_have_no_master():
    model = nn.Sequential(one_weight(0.05), one_weight(0.07))
    model[0].weight.requires_grad_(False)
    weights = MasterWeights(model, BF16)
    assert weights.names == ["1.weight"]
    assert dtypes(model) == {BF16}


def test_float32_weights_are_their_own_masters():
    """Mutation: a copy would double the memory and never reach the model."""
    model = one_weight(0.05)
    weights = MasterWeights(model, torch.float32)
    assert weights.masters[0] is model.weight


def test_a_model_that_was_loaded_in_half_precision_can_be_trained_in_float32():
    model = one_weight(0.05).to(BF16)
    weights = MasterWeights(model, torch.float32)
    assert weights.masters[0] is model.weight
    assert model.weight.dtype == torch.float32


def test_adapters_stay_float32_over_a_base_in_half_precision():
    """Mutation: treating adapters like the base casts them, and gives them copies to train."""
    loaded = attach_lora(load_model("tiny", dtype="float32", device="cpu"), r=2)
    weights = MasterWeights(loaded.model, BF16)
    adapters = {name: p for name, p in loaded.model.named_parameters() if "lora_" in name}
    base = {name: p for name, p in loaded.model.named_parameters() if "lora_" not in name}
    assert weights.state().keys() == adapters.keys()
    assert all(weights.state()[name] is parameter for name, parameter in adapters.items())
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    assert {p.dtype for p in base.values()} == {BF16}
    loaded.model(IDS).logits.float().logsumexp(-1).sum().backward()
    assert {p.grad.dtype for name, p in adapters.items() if p.grad is not None} == {torch.float32}
    assert all(p.grad is None for p in base.values())


def test_a_tied_weight_has_one_master_and_one_gradient():
    """Embedding and head of `tiny` are one matrix; both uses add to its gradient."""
    loaded = load_model("tiny", dtype="float32", device="cpu")
    plain = load_model("tiny", dtype="float32", device="cpu")
    weights = MasterWeights(loaded.model, BF16)
    assert len(weights.names) == 20
    assert "lm_head.weight" not in weights.names
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    for model in (loaded.model, plain.model):
        model(IDS).logits.float().logsumexp(-1).sum().backward()
    ours = weights.state()["model.embed_tokens.weight"].grad
    theirs = plain.model.model.embed_tokens.weight.grad
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99


def test_rotary_frequencies_stay_float32():
    """Mutation: model.to(bf16) rounds the frequencies, and positions blur."""
    loaded = load_model("tiny", dtype="float32", device="cpu")
    before = loaded.model.model.rotary_emb.inv_freq.clone()
    weights = MasterWeights(loaded.model, BF16)
    assert torch.equal(loaded.model.model.rotary_emb.inv_freq, before)
    weights.restore()
    assert torch.equal(loaded.model.model.rotary_emb.inv_freq, before)


def test_restore_gives_the_model_its_float32_weights_and_its_gradients_back():
    """Mutation: hooks that are left on would take the gradients of whoever uses the model next."""
    model = nn.Sequential(one_weight(0.05), one_weight(0.07))
    model[1].weight.requires_grad_(False)
    weights = MasterWeights(model, BF16)
    weights.masters[0].add_(1e-6)
    weights.restore()
    assert dtypes(model) == {torch.float32}
    assert model[0].weight.item() == weights.masters[0].item()
    assert model[0].weight.item() == pytest.approx(0.05 + 1e-6, abs=1e-8)
    model(torch.ones(1, 1)).sum().backward()
    assert model[0].weight.grad is not None
    weights.restore()  # a second time changes nothing
    assert dtypes(model) == {torch.float32}


def test_the_base_under_adapters_comes_back_to_the_bit():
    """Mutation: a base that stays in half precision is not the model that was loaded any more."""
    loaded = attach_lora(load_model("tiny", dtype="float32", device="cpu"), r=2)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    MasterWeights(loaded.model, BF16).restore()
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.named_parameters())


def test_load_is_the_inverse_of_state_and_reaches_the_model():
    """Mutation: load without publish leaves the sampler with old weights."""
    one, other = MasterWeights(one_weight(0.05), BF16), one_weight(0.9)
    weights = MasterWeights(other, BF16)
    weights.load({name: tensor.clone() for name, tensor in one.state().items()})
    assert weights.masters[0].item() == torch.tensor(0.05).item()
    assert other.weight.item() == 0.050048828125
    with pytest.raises(KeyError, match="weight"):
        weights.load({})
