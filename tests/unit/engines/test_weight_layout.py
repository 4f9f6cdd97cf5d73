"""Weights laid out beforehand give the same bits, and are those of now."""

import copy

import pytest
import torch
from torch import nn

from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.layout import WeightLayout, available

pytestmark = pytest.mark.skipif(not available(), reason="this processor or build of torch has no bfloat16 layouts")


class Pair(nn.Module):
    """A layer with a bias and one without."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(96, 160), nn.Linear(160, 48, bias=False)
        self.to(torch.bfloat16).requires_grad_(False)

    def forward(self, given):
        return self.second(torch.relu(self.first(given)))


@pytest.fixture
def pair():
    torch.manual_seed(3)
    return Pair()


def given(width, seed=0):
    return torch.randn(1, width, 96, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("width", [1, 7, 32, 64, 256])
def test_it_changes_no_bit(pair, width):
    expected = pair(given(width))
    with torch.inference_mode(), WeightLayout(pair):
        assert torch.equal(pair(given(width)), expected)


def _write(layer):
    layer.weight.copy_(layer.weight.flip(0))


def _replace(layer):
    layer.weight.data = layer.weight.data.flip(0)


def _set_bias(layer):
    layer.bias = nn.Parameter(layer.bias.flip(0), requires_grad=False)


@pytest.mark.parametrize("change", [_write, _replace, _set_bias])
def test_a_weight_that_changed_is_laid_out_again(pair, change):
    """Mutations: the version, the address or the bias left out of what is known of a weight."""
    layout = WeightLayout(pair)
    with torch.inference_mode(), layout:
        before = pair(given(8))
    change(pair.first)
    with torch.inference_mode(), layout:
        after = pair(given(8))
    assert not torch.equal(after, before)
    assert torch.equal(after, pair(given(8)))


def test_a_layer_that_took_anothers_place_is_laid_out_when_that_is_announced(pair):
    """Mutation: the layers of the first moment kept, which would also hold on to their memory."""
    layout = WeightLayout(pair)
    pair.first = nn.Linear(96, 160).to(torch.bfloat16).requires_grad_(False)
    layout.forget()
    with torch.inference_mode(), layout:
        assert "forward" in vars(pair.first)


def test_a_change_without_a_trace_is_seen_when_it_is_announced(pair):
    layout = WeightLayout(pair)
    with torch.inference_mode(), layout:
        before = pair(given(8))
    pair.first.weight.data.mul_(2.0)
    layout.forget()
    with torch.inference_mode(), layout:
        after = pair(given(8))
    assert not torch.equal(after, before)
    assert torch.equal(after, pair(given(8)))


def test_outside_of_it_the_model_is_as_it_was(pair):
    """Mutation: the layers left as they are when a pass fails."""
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inner product"), WeightLayout(pair):
        pair(torch.zeros(1, 2, 95).bfloat16())
    assert "forward" not in vars(pair.first)
    assert copy.deepcopy(pair)(given(2)).shape == (1, 2, 48)


def test_a_thread_that_trains_gets_its_gradient(pair):
    """Mutation: the operator without a gradient for every thread."""
    pair.requires_grad_(True)
    layout = WeightLayout(pair)
    with torch.inference_mode(), layout:
        pair(given(8))
    with layout:
        pair(given(8)).sum().backward()
    assert pair.first.weight.grad.abs().sum() > 0


async def test_the_layout_is_left_before_a_reply_is_delivered(kit):
    """Mutation: the layout around the whole round, replies included."""
    loaded = kit.tiny("bfloat16")
    layers = [module for module in loaded.model.modules() if type(module) is nn.Linear]
    async with kit.engine(loaded) as engine:
        seen = []
        deliver = engine._finish

        def finish(row, reason):
            seen.append(any("forward" in vars(layer) for layer in layers))
            return deliver(row, reason)

        engine._finish = finish
        await engine.generate(GenerationRequest("a", kit.ids(20), SamplingParams(max_new_tokens=4)))
    assert seen == [False]


def test_float32_is_left_alone(pair):
    pair.float()
    with WeightLayout(pair):
        assert "forward" not in vars(pair.first)


async def test_an_engine_speaks_with_the_weights_of_now(kit):
    """Mutation: layouts kept after `weights_changed`."""
    loaded = kit.tiny("bfloat16")
    request = GenerationRequest("a", kit.ids(20), SamplingParams(max_new_tokens=8))
    async with kit.engine(loaded) as engine:
        before = await engine.generate(request)
        for parameter in loaded.model.parameters():
            parameter.data.mul_(1.5)
        engine.weights_changed(1)
        after = await engine.generate(request)
    async with kit.engine(loaded) as engine:
        assert kit.said([await engine.generate(request)]) == kit.said([after])
    assert after.logprobs != before.logprobs


def test_a_layout_that_fails_halfway_leaves_nothing_behind(pair, monkeypatch):
    """Mutation: layers that were entered before stay so, because nobody leaves what was never entered."""
    layout = WeightLayout(pair)
    laid_out = layout._layers[1]._laid_out

    def no_memory(weight, bias):
        raise MemoryError

    monkeypatch.setattr(layout._layers[1], "_laid_out", no_memory)
    with pytest.raises(MemoryError), layout:
        pass
    assert "forward" not in vars(pair.first)
    monkeypatch.setattr(layout._layers[1], "_laid_out", laid_out)
    with torch.inference_mode(), layout:
        assert "forward" in vars(pair.second)


def test_a_forward_of_somebody_else_stays(pair):
    """Mutation: whatever forward a layer has is taken away."""
    pair.first.forward = own = lambda given: given[..., :1].expand(-1, -1, 160)
    with torch.inference_mode(), WeightLayout(pair):
        assert pair.first.forward is own
    assert pair.first.forward is own
