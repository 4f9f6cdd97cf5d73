import pytest
import torch
from torch import nn

from stateset_agents.core.errors import ModelError
from stateset_agents.engines.cache import CachedPlan, KeyValueCache
from stateset_agents.engines.packed import ATTENTION, Head, PackedModel


class Config:
    def __init__(self, **fields):
        vars(self).update(fields)


def layer(bias=None):
    linear = nn.Linear(2, 3, bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
        if bias is not None:
            linear.bias.copy_(torch.tensor(bias))
    return linear


@pytest.mark.parametrize(
    ("head", "logits"),
    [
        (Head(layer(), Config()), [3.0, 8.0, 7.0]),
        (Head(layer([1.0, 0.0, -1.0]), Config()), [4.0, 8.0, 6.0]),
        (Head(layer(), Config(logit_scale=0.5)), [1.5, 4.0, 3.5]),
        (Head(layer(), Config(logits_scaling=4.0)), [0.75, 2.0, 1.75]),
        (Head(layer(), Config(logit_scale=None, logits_scaling=None)), [3.0, 8.0, 7.0]),
        (Head(layer(), Config(final_logit_softcapping=5.0)), [5 * 0.537050, 5 * 0.921669, 5 * 0.885352]),
    ],
    ids=["plain", "bias", "scale", "divisor", "none", "cap"],
)
def test_the_head_scales_and_caps_as_the_family_does(head, logits):
    computed = head.logits(torch.tensor([[3.0, 4.0]]))
    assert computed[0].tolist() == pytest.approx(logits, abs=1e-4)
    assert computed.dtype is torch.float32


@pytest.mark.parametrize(
    "config", [Config(), Config(logit_scale=0.5), Config(logits_scaling=4.0), Config(final_logit_softcapping=5.0)]
)
def test_the_slope_is_the_derivative_of_the_logits_by_the_raw_output(config):
    head = Head(nn.Identity(), config)
    raw = torch.tensor([[-3.0, 0.5, 8.0]], dtype=torch.float32, requires_grad=True)
    logits = head.logits(raw)
    (expected,) = torch.autograd.grad(logits.sum(), raw)
    slope = head.slope(logits.detach())
    torch.testing.assert_close(torch.as_tensor(slope).expand_as(expected), expected)


def test_logits_of_a_half_precision_head_are_float32_and_a_tensor_of_their_own():
    head = Head(layer().bfloat16(), Config())
    assert head.logits(torch.ones(1, 2, dtype=torch.bfloat16)).dtype is torch.float32
    same = Head(nn.Identity(), Config())
    hidden = torch.ones(1, 2)
    same.logits(hidden).zero_()
    assert hidden.tolist() == [[1.0, 1.0]]


def test_a_model_without_a_head_is_refused(kit):
    with pytest.raises(ModelError, match="LlamaModel has no output head"):
        PackedModel(kit.tiny().model.model)


def test_the_stock_forward_pass_is_unchanged_by_packing(kit):
    ids = torch.tensor([kit.ids(30)])
    with torch.no_grad():
        expected = kit.tiny().model(input_ids=ids).logits
        model = kit.tiny().model
        packed = PackedModel(model)
        assert torch.equal(model(input_ids=ids).logits, expected)
        torch.testing.assert_close(packed.stock_logits(ids[0]), expected[0], atol=1e-4, rtol=1e-4)
    assert model.config._attn_implementation == ATTENTION  # eager was for that one call


def test_facts_of_the_model(kit):
    packed = PackedModel(kit.tiny().model)
    assert (packed.vocabulary, packed.device.type, packed.model_name) == (512, "cpu", "LlamaForCausalLM")
    assert not packed.has_experts
    assert PackedModel(kit.small("MixtralForCausalLM", "MixtralConfig", num_local_experts=4).model).has_experts


def test_hidden_states_of_a_piece_do_not_depend_on_what_the_dummies_are(kit):
    packed = PackedModel(kit.tiny().model)
    ids = list(kit.ids(10))
    outcomes = []
    for dummies in ([0] * 54, list(kit.ids(54))):
        slot = KeyValueCache().take(10)
        positions = torch.tensor([*range(10), *[0] * 54])
        with torch.no_grad():
            hidden = packed.hidden(torch.tensor(ids + dummies), positions, CachedPlan([(slot, 0, 10)], packed.device))
        outcomes.append(hidden[:10])
    assert torch.equal(*outcomes)
