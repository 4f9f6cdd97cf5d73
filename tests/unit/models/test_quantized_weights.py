"""Layers with rounded weights: the numbers that their bits stand for, by hand, and the sum made with them."""

import importlib.util

import pytest
import torch
from torch import nn

from stateset_agents.core.errors import ModelError
from stateset_agents.models import load_model
from stateset_agents.models.quantized import QuantizedLinear, quantize, restore, why_not

installed = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("bitsandbytes") is None, reason="the extra quantization is not installed"
    ),
]


def both_widths(test):
    for mark in (*installed, pytest.mark.parametrize("bits", [4, 8])):
        test = mark(test)
    return test


def layer(weight, bias=None, dtype=torch.float32):
    weight = torch.as_tensor(weight, dtype=dtype)
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=dtype)
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(torch.as_tensor(bias, dtype=dtype))
    return made


def random_layer(dtype=torch.float32, rows=32, columns=64):
    generator = torch.Generator().manual_seed(0)
    return layer(torch.randn(rows, columns, generator=generator), torch.randn(rows, generator=generator), dtype)


@both_widths
def test_a_weight_that_the_bits_can_say_is_kept_exactly(bits):
    """-1, 0 and 1 are levels of NormalFloat, and whole numbers."""
    weight = 2.0 * torch.tensor([[1.0, -1.0, 0.0, 1.0], [0.0, 0.0, -1.0, 1.0]]).repeat(1, 32)
    assert torch.equal(QuantizedLinear(layer(weight), bits).weight, weight)


@pytest.mark.parametrize("installed", [pytest.param(None, marks=installed)])
def test_eight_bits_are_whole_127ths_of_the_largest_of_the_row(installed):
    rounded = QuantizedLinear(layer([[127.0, 63.4, -0.6, 0.2], [0.0, 12.7, 0.04, -0.16]]), 8).weight
    expected = torch.tensor([[127.0, 63.0, -1.0, 0.0], [0.0, 12.7, 0.0, -0.2]])
    assert torch.allclose(rounded, expected, rtol=0, atol=1e-2)  # bitsandbytes rounds to float16 first


@both_widths
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rounded_layer_computes_what_the_plain_one_with_its_weight_does_to_the_bit(bits, dtype):
    """Mutation: leave out the bias, or take bitsandbytes' own product, which rounds what is given too."""
    rounded = QuantizedLinear(random_layer(dtype), bits)
    plain = layer(rounded.weight, rounded.bias.detach(), dtype)
    given = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert rounded.weight.dtype == dtype
    assert not torch.equal(rounded.weight, random_layer(dtype).weight)
    assert torch.equal(rounded(given), plain(given))
    with torch.inference_mode():
        assert torch.equal(rounded(given), plain(given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rounded(given.float()).dtype == torch.bfloat16
        assert torch.equal(rounded(given.float()), plain(given.float()))


@both_widths
def test_gradients_go_through_to_what_was_given_and_stay_out_of_the_layer(bits):
    rounded = QuantizedLinear(random_layer(), bits)
    plain = layer(rounded.weight, rounded.bias.detach())
    given = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for one in (rounded, plain):
        leaf = given.clone().requires_grad_()
        one(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, rtol=1e-6, atol=1e-6)
    assert gradients[0].abs().max() > 1
    assert [parameter.requires_grad for parameter in rounded.parameters()] == [False]


@both_widths
def test_a_model_is_as_it_was_after_its_layers_were_rounded_and_put_back(bits):
    loaded = load_model("tiny")
    ids = torch.arange(40)[None]
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    modules = dict(loaded.model.named_modules())
    plain = quantize(loaded, bits, "cpu")
    rounded = loaded.model.state_dict()
    assert len(plain) == 14  # two layers, seven each
    assert rounded.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], rounded[name])}
    assert moved == {f"{name}.weight" for name in plain}
    assert not any("embed" in name or "norm" in name or "head" in name for name in plain)
    with torch.no_grad():
        logits = loaded.model(ids).logits
    restore(loaded, plain, "cpu")
    assert dict(loaded.model.named_modules()) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())
    loaded.model.load_state_dict(rounded)
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, logits)


@both_widths
def test_a_model_whose_rounding_fails_half_way_is_as_it_was(bits, monkeypatch):
    loaded = load_model("tiny")
    modules = dict(loaded.model.named_modules())
    made, begin = [], QuantizedLinear.__init__

    def fails_at_the_third(self, plain, bits):
        made.append(plain)
        if len(made) == 3:
            raise MemoryError("no more")
        begin(self, plain, bits)

    monkeypatch.setattr(QuantizedLinear, "__init__", fails_at_the_third)
    with pytest.raises(MemoryError):
        quantize(loaded, bits, "cpu")
    assert dict(loaded.model.named_modules()) == modules


@both_widths
def test_four_and_eight_bits_work_on_this_cpu(bits):
    assert why_not(bits, "cpu") is None


def test_a_model_without_linear_layers_is_refused():
    loaded = load_model("tiny")
    for name, part in list(loaded.model.named_modules()):
        if type(part) is nn.Linear and part is not loaded.model.get_output_embeddings():
            loaded.model.set_submodule(name, nn.Identity())
    with pytest.raises(ModelError, match="tiny cannot be kept in 4 bits: LlamaForCausalLM has no linear layers"):
        quantize(loaded, 4, "cpu")


@pytest.mark.parametrize("bits", [4, 8])
def test_a_device_on_which_bitsandbytes_fails_or_is_far_off_is_told(bits, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())

    class Broken:
        def __init__(self, plain, bits):
            raise NotImplementedError("no kernel\nfor this device")

    class Wrong:
        def __init__(self, plain, bits):
            self.weight = torch.zeros_like(plain.weight)

    monkeypatch.setattr("stateset_agents.models.quantized.QuantizedLinear", Broken)
    assert why_not(bits, "cpu") == (
        f"does not work on cpu: bitsandbytes cannot round weights to {bits} bits there (NotImplementedError: no kernel)"
    )
    monkeypatch.setattr("stateset_agents.models.quantized.QuantizedLinear", Wrong)
    assert "is off by 1" in why_not(bits, "cpu")


def test_without_bitsandbytes_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_not(4, "cpu") == (
        "needs the package bitsandbytes, which is not installed: pip install 'grpo-agent-framework[quantization]'"
    )
