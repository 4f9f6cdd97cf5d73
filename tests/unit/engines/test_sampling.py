import hashlib
import itertools
import math
import random

import numpy
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from stateset_agents.engines.base import SamplingParams
from stateset_agents.engines.sampling import choose, uniform


@pytest.mark.parametrize(
    ("key", "position", "value"),
    [
        ("episode-7#0", 0, 0.8655424133556063),
        ("episode-7#0", 1, 0.8542876137949932),
        ("", 0, 0.01282135281675345),
        ("ключ", 41, 0.8672529123611666),
    ],
)
def test_noise_is_a_function_of_key_and_position_for_ever(key, position, value):
    assert uniform(key, position) == value


@pytest.mark.parametrize(("byte", "value"), [(b"\x00", 2.0**-53), (b"\xff", 1 - 2.0**-53)])
def test_noise_is_never_0_or_1(monkeypatch, byte, value):
    class Digest:
        def digest(self):
            return byte * 8

    monkeypatch.setattr(hashlib, "blake2b", lambda *_, **__: Digest())
    assert uniform("any", 0) == value
    assert 0.0 < value < 1.0


def test_key_and_position_do_not_run_into_each_other():
    assert len({uniform("a", 11), uniform("a1", 1), uniform("a11", 0), uniform("a", 1)}) == 4


def draw(probabilities, noise, **params):
    logits = torch.tensor([probabilities]).log().expand(len(noise), -1)
    ids, logprobs = choose(logits, [SamplingParams(**params)] * len(noise), noise, [()] * len(noise))
    return ids, logprobs


def test_four_tokens_are_drawn_as_often_as_their_probabilities_say():
    probabilities, keys = [0.5, 0.3, 0.15, 0.05], 20_000
    for position in (0, 1, 77):
        ids, _ = draw(probabilities, [uniform(f"row {key}", position) for key in range(keys)])
        for token, p in enumerate(probabilities):
            # Four standard deviations of a binomial count: one such check in 16,000 fails by chance, but the noise
            # is fixed, so this one either always passes or never.
            assert abs(ids.count(token) - keys * p) < 4 * math.sqrt(keys * p * (1 - p))


def test_positions_of_one_key_are_independent():
    draws = [uniform("one key", position) for position in range(20_001)]
    assert abs(sum(draws) / len(draws) - 0.5) < 4 * math.sqrt(1 / 12 / len(draws))
    products = [(a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(draws)]
    assert abs(sum(products) / len(products)) < 4 / 12 / math.sqrt(len(products))


def test_the_noise_picks_the_token_in_whose_share_it_falls():
    noise = [0.0, 0.2499, 0.2501, 0.4999, 0.5001, 0.9999, 1.0]
    ids, logprobs = draw([0.25, 0.25, 0.5], noise)
    assert ids == [0, 0, 1, 1, 2, 2, 2]
    assert logprobs == pytest.approx([math.log(p) for p in (0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5)], abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, 2.0**-53, 0.5, 1 - 2.0**-53, 1.0])
@pytest.mark.parametrize("params", [{}, {"top_p": 0.999}, {"top_k": 3}, {"temperature": 3.0}, {"temperature": 1e-40}])
def test_a_token_of_probability_0_is_never_drawn(noise, params):
    (token,), (logprob,) = draw([0.0, 0.0, 0.75, 0.0, 0.25, 0.0, 0.0], [noise], **params)
    assert token in (2, 4)
    assert math.isfinite(logprob)


def test_only_one_possible_token_is_drawn_with_log_prob_0():
    assert draw([0.0, 1.0, 0.0], [0.0, 0.5, 1.0]) == ([1, 1, 1], [0.0, 0.0, 0.0])


def test_temperature_divides_the_logits_and_the_recorded_log_prob_is_of_that_temperature():
    logits = torch.tensor([[2.0, 0.0]])
    for temperature in (0.5, 1.0, 2.0):
        share = 1 / (1 + math.exp(-2 / temperature))
        (low,), (logprob,) = choose(logits, [SamplingParams(temperature=temperature)], [share - 1e-6], [()])
        (high,), _ = choose(logits, [SamplingParams(temperature=temperature)], [share + 1e-6], [()])
        assert (low, high) == (0, 1)
        assert logprob == pytest.approx(math.log(share), abs=1e-6)


def test_greedy_takes_the_largest_logit_and_records_temperature_1():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    (token,), (logprob,) = choose(logits, [SamplingParams(temperature=0.0)], [0.999], [()])
    assert token == 1
    assert logprob == pytest.approx(-math.log(1 + math.exp(-2) + math.exp(-1)), abs=1e-6)


def test_greedy_tells_logits_apart_that_are_equal_as_log_probs():
    logits = torch.full((1, 50_000), 0.0)
    logits[0, 7] = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    assert logits.log_softmax(-1).unique().numel() == 1
    assert choose(logits, [SamplingParams(temperature=0.0)], [0.5], [()])[0] == [7]


TRUNCATIONS = [
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"top_p": 1e-6},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.6},
    {"top_k": 20, "top_p": 0.8, "repetition_penalty": 1.7, "temperature": 0.7},
    {"top_p": 0.95, "temperature": 1.5},
]


def reference(logits, params, seen):
    """Probabilities of each token by transformers' own logits processors."""
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    return processors(torch.tensor([seen]), logits[None])[0].softmax(-1)


@pytest.mark.parametrize("settings", TRUNCATIONS, ids=str)
def test_truncation_draws_from_the_distribution_of_transformers_processors(settings):
    params, points = SamplingParams(**settings), 400
    logits = torch.randn(60, generator=torch.Generator().manual_seed(4)) * 2
    seen = [3, 3, 17, 21, int(logits.argmax())]
    shares = reference(logits, params, seen).double()
    edges = shares.cumsum(-1)
    noise = [(point + 0.5) / points for point in range(points)]
    ids, logprobs = choose(logits.expand(points, -1), [params] * points, noise, [seen] * points)
    untruncated = (logits / params.temperature).log_softmax(-1)
    for point, token, logprob in zip(noise, ids, logprobs, strict=True):
        assert shares[token] > 0
        assert edges[token] - shares[token] - 1e-6 <= point <= edges[token] + 1e-6
        assert logprob == untruncated[token].item()
    assert {token for token in range(60) if shares[token] > 1 / points} <= {*ids}


def test_rows_with_different_parameters_share_a_call_without_touching_each_other():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 37, generator=generator)
    params = [
        SamplingParams(),
        SamplingParams(temperature=0.0),
        SamplingParams(top_k=2, temperature=0.5),
        SamplingParams(top_p=0.5, repetition_penalty=2.0),
    ]
    noise, seen = [0.3, 0.9, 0.6, 0.01], [(), (1,), (2,), (3, 4)]
    together = choose(logits, params, noise, seen)
    for i in range(4):
        (token,), (logprob,) = choose(logits[i : i + 1], params[i : i + 1], noise[i : i + 1], seen[i : i + 1])
        assert (token, logprob) == (together[0][i], together[1][i])


def test_logits_are_not_changed_in_place():
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(2))
    before = logits.clone()
    choose(logits, [SamplingParams(top_p=0.5, top_k=3, repetition_penalty=1.5)] * 2, [0.1, 0.9], [(1,), (2,)])
    assert torch.equal(logits, before)


def test_no_random_generator_is_read_or_moved():
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    draw([0.5, 0.5], [uniform("k", i) for i in range(50)], top_p=0.9)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states[1:]


def test_logits_that_are_no_numbers_give_a_log_prob_that_is_none():
    _, logprobs = choose(torch.full((1, 5), float("nan")), [SamplingParams()], [0.5], [()])
    assert math.isnan(logprobs[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"max_new_tokens": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_by_name_and_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .* not {value}"):
        SamplingParams(**wrong)
