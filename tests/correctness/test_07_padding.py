"""Row 7. Rows of unequal length in one batch: padding without mask or positions moves every log-prob.

Nothing is padded here: rows are packed. Neighbours and the engine's dummies must leave no trace, also in a model whose
positions are learned; rotary ones hide a shift of a whole row.
"""

import asyncio

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import LoadedModel, load_tokenizer

PAD = 1
LENGTHS = ((3, 9), (70, 4), (21, 17), (300, 2))
"""Tokens of prompt and reply; a prompt of 300 is read in two pieces."""


def learned_positions(kit):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = GPT2Config(
            vocab_size=512, n_positions=512, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3,
            bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        return LoadedModel.of("GPT2", GPT2LMHeadModel(config), load_tokenizer("tiny"), {})


def padded(model, rows, side):
    """Log-probs of each row's trained tokens from one padded batch, with the mask and positions that this takes."""
    width = max(len(row) for row in rows)
    ids, seen = [], []
    for row in rows:
        fill = width - len(row)
        ids.append([PAD] * fill + row.ids if side == "left" else row.ids + [PAD] * fill)
        seen.append([0] * fill + [1] * len(row) if side == "left" else [1] * len(row) + [0] * fill)
    mask = torch.tensor(seen)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids), attention_mask=mask, position_ids=positions, use_cache=False).logits
    found = []
    for row, line in zip(rows, logits.log_softmax(-1), strict=True):
        begin = width - len(row) if side == "left" else 0
        found.extend(line[begin + at - 1, row.ids[at]].item() for at in range(len(row)) if row.mask[at])
    return found


@pytest.mark.parametrize("model", ["rotary", "learned"])
async def test_unequal_rows_have_the_log_probs_that_they_have_alone_in_the_sampler_and_in_the_learner(kit, model):
    """Mutation: positions by place in the pack in training/packing.py: fails for learned positions only. Positions of
    prefixes alone that go on, or each piece of a prompt counted from 0 in engines/passes.py: fails for both.
    """
    loaded = kit.tiny() if model == "rotary" else learned_positions(kit)
    stock = (kit.tiny() if model == "rotary" else learned_positions(kit)).model
    engine = LocalEngine(loaded)
    prompts = [kit.ids(length, length) for length, _ in LENGTHS]
    requests = [
        GenerationRequest(f"{place}", tuple(prompt), SamplingParams(max_new_tokens=reply))
        for place, (prompt, (_, reply)) in enumerate(zip(prompts, LENGTHS, strict=True))
    ]
    replies = await asyncio.gather(*map(engine.generate, requests))
    await engine.aclose()
    rows = [kit.row((prompt, False), (reply.ids, True)) for prompt, reply in zip(prompts, replies, strict=True)]
    recorded = [logprob for reply in replies for logprob in reply.logprobs]
    learner = kit.learner(loaded)
    group = kit.group(*((float(place), [row]) for place, row in enumerate(rows)))
    learned = learner.policy.logprobs(kit.batch(learner, [group]))[0].tolist()
    alone = torch.cat([kit.stock_logprobs(stock, row) for row in rows]).tolist()
    assert recorded == pytest.approx(alone, abs=1e-4)
    assert learned == pytest.approx(alone, abs=1e-4)
    for side in ("left", "right"):
        assert padded(stock, rows, side) == pytest.approx(learned, abs=1e-4)
