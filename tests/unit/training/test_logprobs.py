"""Chosen log-probs, a few rows of logits at a time, equal those of plain log_softmax over all of them."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stateset_agents.core.trajectory import TokenRow
from stateset_agents.engines.packed import Head, PackedModel
from stateset_agents.models import attach_lora, load_model
from stateset_agents.training.logprobs import BLOCK, ROWS, chosen_logprobs
from stateset_agents.training.packing import PackedBatch, Sample, SharedPrefixPlan

VOCABULARY, HIDDEN = 50, 12

VARIANTS: dict[str, tuple[dict[str, float], bool, float]] = {
    "plain": ({}, False, 1.0),
    "bias and temperature": ({}, True, 0.7),
    "logit scale": ({"logit_scale": 0.25}, False, 1.0),
    "divided logits and temperature": ({"logits_scaling": 4.0}, True, 1.3),
    "soft cap, scale, bias and temperature": ({"final_logit_softcapping": 3.0, "logit_scale": 0.5}, True, 0.7),
}


def head(config: dict[str, float], bias: bool, vocabulary: int = VOCABULARY) -> Any:
    """Something with a head, which is all that `chosen_logprobs` looks at."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(HIDDEN, vocabulary, bias=bias)
    return SimpleNamespace(head=Head(layer, SimpleNamespace(**config)), layer=layer)


def states(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, targets, and the gradients that come from above."""
    generator = torch.Generator().manual_seed(count)
    hidden = 2.0 * torch.randn(count, HIDDEN, generator=generator)
    return hidden, torch.randint(VOCABULARY, (count,), generator=generator), torch.randn(count, generator=generator)


def plainly(
    model: Any, config: dict[str, float], hidden: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits at once in float64, by autograd."""
    bias = None if model.layer.bias is None else model.layer.bias.double()
    logits = torch.nn.functional.linear(hidden.double(), model.layer.weight.double(), bias)
    logits = logits * config.get("logit_scale", 1.0) / config.get("logits_scaling", 1.0)
    cap = config.get("final_logit_softcapping")
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def assert_near(one: torch.Tensor, other: torch.Tensor) -> None:
    largest = other.abs().max().item() if other.numel() else 1.0
    assert torch.allclose(one.double(), other.double(), rtol=0, atol=2e-6 * max(1.0, largest))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [0, 1, ROWS - 1, ROWS, ROWS + 1, BLOCK + 1])
def test_values_and_gradients_are_those_of_plain_log_softmax(count, variant):
    """Mutations: temperature or cap left out of the slope, a block's rows in the wrong place, the last block lost."""
    config, bias, temperature = VARIANTS[variant]
    model = head(config, bias)
    hidden, targets, above = states(count)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    logprobs, entropies = chosen_logprobs(model, ours, targets, temperature)
    logprobs.backward(above)
    own = [ours.grad, *[p.grad for p in model.layer.parameters()]]
    model.layer.zero_grad()
    expected, expected_entropies = plainly(model, config, theirs, targets, temperature)
    expected.backward(above.double())
    assert_near(logprobs, expected)
    assert_near(entropies, expected_entropies)
    assert logprobs.dtype == entropies.dtype == torch.float32
    for slope, reference in zip(own, [theirs.grad, *[p.grad for p in model.layer.parameters()]], strict=True):
        assert_near(slope, reference)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [1, ROWS + 1, BLOCK + 1])
def test_the_gradient_of_the_entropy_is_that_of_plain_log_softmax(count, variant):
    """Mutations: the entropy left out of the slope, the temperature forgotten, log-probs' gradient lost beside it."""
    config, bias, temperature = VARIANTS[variant]
    model = head(config, bias)
    hidden, targets, above = states(count)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    logprobs, entropies = chosen_logprobs(model, ours, targets, temperature)
    (0.5 * (logprobs * above).sum() + (entropies * above.flip(0)).sum()).backward()
    own = [ours.grad, *[p.grad for p in model.layer.parameters()]]
    model.layer.zero_grad()
    expected, expected_entropies = plainly(model, config, theirs, targets, temperature)
    (0.5 * (expected * above).sum() + (expected_entropies * above.flip(0)).sum()).backward()
    for slope, reference in zip(own, [theirs.grad, *[p.grad for p in model.layer.parameters()]], strict=True):
        assert_near(slope, reference)


def two_words() -> Any:
    """Logits are the hidden state: 0 and log 3 are probabilities 1/4 and 3/4."""
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    return SimpleNamespace(head=Head(layer, SimpleNamespace()), layer=layer)


def test_two_words_by_hand():
    """Mutation: temperature as a factor instead of a divisor."""
    hidden = torch.tensor([[0.0, math.log(3)]] * 2, requires_grad=True)
    logprobs, entropies = chosen_logprobs(two_words(), hidden, torch.tensor([0, 1]), 1.0)
    assert logprobs.tolist() == pytest.approx([math.log(0.25), math.log(0.75)])
    assert entropies.tolist() == pytest.approx([0.5623351] * 2)  # -(0.25 log 0.25 + 0.75 log 0.75)
    logprobs.sum().backward()
    assert hidden.grad.flatten().tolist() == pytest.approx([0.75, -0.75, -0.25, 0.25])
    # at temperature 1/2 the odds are squared: 1/10 and 9/10, and slopes are doubled
    cold = hidden.detach().clone().requires_grad_()
    logprobs, entropies = chosen_logprobs(two_words(), cold, torch.tensor([0, 1]), 0.5)
    assert logprobs.tolist() == pytest.approx([math.log(0.1), math.log(0.9)])
    assert entropies.tolist() == pytest.approx([0.3250830] * 2)
    logprobs.sum().backward()
    assert cold.grad.flatten().tolist() == pytest.approx([1.8, -1.8, -0.2, 0.2])


def test_very_unlikely_tokens_keep_their_log_prob():
    """Mutation: log(softmax) is -inf from about 104 nats on."""
    hidden = torch.tensor([[0.0, 200.0]])
    logprobs, entropies = chosen_logprobs(two_words(), hidden, torch.tensor([0]), 1.0)
    assert logprobs.tolist() == [-200.0]
    assert entropies.tolist() == [0.0]


def test_without_gradients_nothing_is_kept():
    hidden, targets, _ = states(10)
    with torch.no_grad():
        logprobs, _ = chosen_logprobs(head({}, False), hidden.requires_grad_(), targets, 1.0)
    assert not logprobs.requires_grad


class LogitsSpy(TorchDispatchMode):
    """Most rows of any tensor as wide as the vocabulary, by dtype."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.rows: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == self.width:
                self.rows[tensor.dtype] = max(self.rows.get(tensor.dtype, 0), tensor.numel() // self.width)
        return result


def test_logits_exist_for_64_rows_at_once_in_float32_and_for_512_in_half_precision():
    """Mutation: one call of log_softmax over all rows, in the forward or in the backward pass."""
    width, count = 1013, 2 * BLOCK + 7
    model = head({}, False, vocabulary=width)
    model.layer.to(torch.bfloat16)
    hidden, targets, _ = states(count)
    hidden = hidden.to(torch.bfloat16).requires_grad_()
    with LogitsSpy(width) as forward:
        logprobs, _ = chosen_logprobs(model, hidden, targets, 0.7)
    assert forward.rows == {torch.bfloat16: ROWS, torch.float32: ROWS}
    with LogitsSpy(width) as backward:
        torch.autograd.backward(logprobs.sum())
    assert backward.rows == {torch.bfloat16: BLOCK, torch.float32: ROWS}


def chain(*, lora: bool) -> tuple[Any, Any, torch.Tensor]:
    """A model, its packed form and a row of 30 tokens."""
    loaded = load_model("tiny", dtype="float32", device="cpu")
    if lora:
        attach_lora(loaded, r=4)
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(2, 512, (30,), generator=torch.Generator().manual_seed(5))
    return loaded.model, PackedModel(loaded.model), ids


@pytest.mark.parametrize("lora", [False, True])
def test_tied_and_adapted_weights_get_the_gradient_of_the_model_s_own_forward_pass(lora):
    """The matrix of `tiny` is embedding and head in one. Mutation: no gradient for the head's weight."""
    model, packed, ids = chain(lora=lora)
    row = TokenRow()
    row.append_context(ids[:10].tolist())
    row.append_sampled(ids[10:].tolist(), [0.0] * 20, 0)
    batch = PackedBatch.of([Sample(row, 1.0, 1.0, 0, 0)], torch.device("cpu"))
    hidden = packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
    logprobs, _ = chosen_logprobs(packed, hidden[batch.predictors], batch.targets, 0.7)
    logprobs.sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    logits = model(input_ids=ids[None], use_cache=False).logits[0, 9:-1] / 0.7
    expected = logits.log_softmax(-1).gather(1, ids[10:, None])[:, 0]
    expected.sum().backward()
    assert torch.allclose(logprobs, expected, rtol=0, atol=2e-5)
    theirs = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert len(ours) == (28 if lora else 20)
    for name, slope in theirs.items():
        assert torch.allclose(ours[name], slope, rtol=0, atol=1e-5 * slope.abs().max().item()), name
