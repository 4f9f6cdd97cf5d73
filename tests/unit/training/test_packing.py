"""What is packed together computes what each row computes alone, and a group's prompt goes through the model once."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

from stateset_agents.core.trajectory import TokenRow
from stateset_agents.engines.packed import PackedModel
from stateset_agents.models import load_model
from stateset_agents.training.packing import PackedBatch, Sample, SharedPrefixPlan

CPU = torch.device("cpu")
PAD = 1


def row(*pieces: tuple[list[int], bool]) -> TokenRow:
    """A row of (ids, whether they were sampled)."""
    made = TokenRow()
    for ids, sampled in pieces:
        if sampled:
            made.append_sampled(ids, [-0.5] * len(ids), 0)
        else:
            made.append_context(ids)
    return made


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(2, 512, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def samples(rows: list[tuple[int, int, TokenRow]]) -> list[Sample]:
    """Samples of (group, conversation, row), each with an advantage of its own."""
    return [Sample(r, 0.5 + i, 0.1 + 0.01 * i, talk, group) for i, (group, talk, r) in enumerate(rows)]


def same_prompt(prompt_length: int, *reply_lengths: int) -> list[Sample]:
    prompt = random_ids(prompt_length, 1)
    replies = [random_ids(length, 10 + place) for place, length in enumerate(reply_lengths)]
    return samples([(0, i, row((prompt, False), (reply, True))) for i, reply in enumerate(replies)])


def several_turns(seed: int) -> tuple[tuple[list[int], bool], ...]:
    """A reply, the user's answer and the next reply; context at the end that nothing is trained on."""
    lengths = ((5, True), (7, False), (4, True), (3, False))
    return tuple((random_ids(n, seed + place), sampled) for place, (n, sampled) in enumerate(lengths))


def mixed() -> list[Sample]:
    """Two groups, several turns, a conversation in two rows, a rewritten history, a prompt that is shared in part."""
    first, second = random_ids(20, 1), random_ids(11, 2)
    windowed = first[:14] + random_ids(9, 3)
    other = random_ids(16, 4)
    return samples(
        [
            (0, 0, row((first, False), *several_turns(20))),
            (0, 0, row((windowed, False), (random_ids(6, 5), True))),
            (0, 1, row((first, False), *several_turns(30))),
            (0, 1, row((other, False), (random_ids(3, 6), True))),
            (1, 2, row((second, False), (random_ids(1, 7), True))),
            (1, 3, row((second, False), (random_ids(12, 8), True))),
            (2, 4, row((second, False), (random_ids(4, 9), True))),
        ]
    )


def sliding_window() -> torch.nn.Module:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def every_other_layer_windowed() -> torch.nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, use_sliding_window=True, initializer_range=0.2,
        layer_types=["full_attention", "sliding_attention"],
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def tiny() -> torch.nn.Module:
    return load_model("tiny", dtype="float32", device="cpu").model


Result = tuple[dict[float, list[float]], dict[str, torch.Tensor]]


def outcome(model: torch.nn.Module, logprobs: torch.Tensor, advantages: torch.Tensor, weights: torch.Tensor) -> Result:
    """Log-probs by the sample's advantage, and the gradients of a weighted sum."""
    model.zero_grad()
    (logprobs * advantages * weights).sum().backward()
    by_sample: dict[float, list[float]] = {}
    for advantage, logprob in zip(advantages.tolist(), logprobs.tolist(), strict=True):
        by_sample.setdefault(advantage, []).append(logprob)
    return by_sample, {name: p.grad.clone() for name, p in model.named_parameters()}


def packed_outcome(model: torch.nn.Module, parts: list[list[Sample]]) -> Result:
    model = copy.deepcopy(model)
    packed = PackedModel(model)
    logprobs, advantages, weights = [], [], []
    for part in parts:
        batch = PackedBatch.of(part, CPU)
        hidden = packed.hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
        logits = model.lm_head(hidden[batch.predictors])
        logprobs.append(logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0])
        advantages.append(batch.advantages)
        weights.append(batch.weights)
    return outcome(model, torch.cat(logprobs), torch.cat(advantages), torch.cat(weights))


def padded_outcome(model: torch.nn.Module, given: list[Sample]) -> Result:
    """The model's own forward pass over rows padded on the right."""
    model = copy.deepcopy(model)
    width = max(len(sample.row) for sample in given)
    ids = torch.tensor([sample.row.ids + [PAD] * (width - len(sample.row)) for sample in given])
    seen = torch.tensor([[1] * len(sample.row) + [0] * (width - len(sample.row)) for sample in given])
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    logprobs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    kept = torch.tensor([(s.row.mask + [0] * (width - len(s.row)))[1:] for s in given]).bool()
    advantages = torch.tensor([[s.advantage] * (width - 1) for s in given])
    weights = torch.tensor([[s.weight] * (width - 1) for s in given])
    return outcome(model, logprobs[kept], advantages[kept], weights[kept])


def assert_same(one: Result, other: Result, tolerance: float) -> None:
    """Relative to the largest value of each tensor."""
    assert one[0].keys() == other[0].keys()
    for advantage, logprobs in one[0].items():
        assert logprobs == pytest.approx(other[0][advantage], abs=10 * tolerance)
    assert one[1].keys() == other[1].keys()
    for name, slope in one[1].items():
        gap = (slope - other[1][name]).abs().max().item()
        assert gap <= tolerance * other[1][name].abs().max().item(), name


BATCHES = {
    "short branches after a long prompt (one masked call)": same_prompt(40, 3, 1, 6, 4),
    "long branches after a short prompt (a call each)": same_prompt(2, 30, 25, 18),
    "everything at once": mixed(),
}


@pytest.mark.parametrize("make", [tiny, sliding_window, every_other_layer_windowed])
@pytest.mark.parametrize("kind", BATCHES)
def test_packed_rows_are_rows_one_by_one_are_padded_rows(make, kind):
    """Mutations: branches that see each other, positions that go on counting, a predictor one place off."""
    given, model = BATCHES[kind], make()
    together, alone = packed_outcome(model, [given]), packed_outcome(model, [[sample] for sample in given])
    assert_same(together, padded_outcome(model, given), 2e-6)
    assert_same(together, alone, 2e-6)


@pytest.mark.parametrize("kind", BATCHES)
def test_in_float64_they_are_the_same_to_eleven_digits(kind):
    given, model = BATCHES[kind], tiny()
    for layer in [module for module in model.modules() if hasattr(module, "post_attention_layernorm")]:
        # Llama's own norm layers compute in float32 whatever the model's precision.
        layer.input_layernorm, layer.post_attention_layernorm = torch.nn.RMSNorm(64), torch.nn.RMSNorm(64)
    model.model.norm = torch.nn.RMSNorm(64)
    assert_same(packed_outcome(model.double(), [given]), padded_outcome(model.double(), given), 1e-11)


def test_both_ways_to_call_attention_are_taken():
    plans = [SharedPrefixPlan(PackedBatch.of(given, CPU)) for given in BATCHES.values()]
    taken = [
        {plan._joint(end - start, [e - b for b, e in branches]) for start, end, branches in plan._pieces}
        for plan in plans
    ]
    assert taken[:2] == [{True}, {False}]


def test_a_small_batch_place_by_place():
    """Mutations: a prefix that reaches into the reply, the last token read, positions not reset."""
    prompt = [10, 11, 12]
    batch = PackedBatch.of(
        samples(
            [
                (0, 0, row((prompt, False), ([20, 21, 22], True))),
                (0, 1, row((prompt, False), ([20], True), ([30, 31], False), ([32], True), ([33], False))),
                (1, 2, row(([10, 11], False), ([40], True))),
            ]
        ),
        CPU,
    )
    #                            prompt      | row 1  | row 2       | prompt of the other group; its reply is never read
    assert batch.ids.tolist() == [10, 11, 12, 20, 21, 20, 30, 31, 10, 11]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 0, 1]
    assert batch.pieces == [(0, 3, [(3, 5), (5, 8)]), (8, 10, [(10, 10)])]
    assert batch.targets.tolist() == [20, 21, 22, 20, 32, 40]
    assert batch.predictors.tolist() == [2, 3, 4, 2, 7, 9]
    assert batch.conversations.tolist() == [0, 0, 0, 1, 1, 2]
    assert batch.advantages.tolist() == [0.5, 0.5, 0.5, 1.5, 1.5, 2.5]
    assert batch.weights.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.11, 0.11, 0.12])
    assert batch.sampled_logprobs.tolist() == [-0.5] * 6
    assert batch.tokens == 10


def test_the_prefix_ends_before_the_first_trained_token_even_if_all_rows_sampled_the_same():
    """Mutation: a prefix over all equal tokens would train a shared token once instead of twice."""
    same = row(([10, 11], False), ([20, 21, 22], True))
    batch = PackedBatch.of(samples([(0, 0, same), (0, 1, same)]), CPU)
    assert batch.pieces[0][:2] == (0, 2)
    assert batch.targets.tolist() == [20, 21, 22] * 2


def test_what_is_context_in_one_row_and_trained_in_another_is_not_shared():
    """Mutation: a prefix as far as the tokens agree swallows a trained token of the second row."""
    late, early = row(([10, 11, 12, 20], False), ([21], True)), row(([10, 11, 12], False), ([20, 21], True))
    batch = PackedBatch.of(samples([(0, 0, late), (0, 1, early)]), CPU)
    assert batch.ids.tolist() == [10, 11, 12, 20, 20]
    assert batch.targets.tolist() == [21, 20, 21]
    assert batch.predictors.tolist() == [3, 2, 4]


def test_a_group_of_eight_reads_its_prompt_once():
    """40 + 8 x 9 tokens, where one by one it would be 8 x 49. Mutation: a family each."""
    batch = PackedBatch.of(same_prompt(40, *[10] * 8), CPU)
    assert batch.tokens == 112


def test_rows_of_a_conversation_in_between_do_not_part_a_family():
    """Rows a, b of two conversations in turn. Mutation: looking at the last family alone gives four families."""
    first, second = random_ids(20, 1), random_ids(20, 2)
    rows = [(0, i // 2, row((prompt, False), ([9, 8], True))) for i, prompt in enumerate([first, second] * 2)]
    batch = PackedBatch.of(samples(rows), CPU)
    assert [len(branches) for _, _, branches in batch.pieces] == [2, 2]
    assert batch.tokens == 2 * (20 + 2)


def test_a_row_joins_a_family_only_if_that_saves_tokens():
    """Four rows share 20 tokens. With 17 of them a fifth saves 17 and costs 4 x 3; with 14 it would cost 4 x 6.

    Mutation: a cost that does not grow with the family.
    """
    prompt = random_ids(20, 1)
    four = [(0, i, row((prompt, False), ([9], True))) for i in range(4)]
    close = (0, 4, row(([*prompt[:17], 2, 3, 4], False), ([9], True)))
    far = (0, 4, row(([*prompt[:14], 2, 3, 4], False), ([9], True)))
    assert prompt[17] != 2
    assert prompt[14] != 2
    assert PackedBatch.of(samples([*four, close]), CPU).tokens == 17 + 5 * 3
    assert PackedBatch.of(samples([*four, far]), CPU).tokens == 20 + 17


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(([5, 6], True))], "must begin with context"),
        ([row(([5, 6], False))], "each of them a trained token"),
        ([], "needs rows"),
    ],
)
def test_a_row_that_cannot_be_trained_is_an_error(rows, message):
    with pytest.raises(ValueError, match=message):
        PackedBatch.of(samples([(0, i, r) for i, r in enumerate(rows)]), CPU)
