"""The engine's numbers against the model's own forward pass over the whole row, with eager attention and no cache."""

import copy
import math

import pytest
import torch

from stateset_agents.core.errors import ModelError
from stateset_agents.engines import packed, self_check
from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.packed import PackedModel
from stateset_agents.engines.self_check import check_model
from stateset_agents.models import load_model

SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "Llama": {"tie_word_embeddings": True},
    "Llama, yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "Qwen2": {"tie_word_embeddings": False},
    "Qwen2, sliding": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "Qwen3": {"head_dim": 16},
    "Mistral": {"sliding_window": 16},
    "Gemma": {"head_dim": 16},
    "Gemma3": {"head_dim": 16, "query_pre_attn_scalar": 16, **SLIDING},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},
    "GPT2, scaled": {"n_embd": 32, "n_layer": 2, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Phi": {},
    "Phi3": {"sliding_window": 16},
    "Cohere": {"logit_scale": 0.25},
    "Cohere2": {"logit_scale": 0.25, **SLIDING},
    "Granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    "Mixtral": {"num_local_experts": 4},
    "DeepseekV3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}
CLASSES = {"GPT2": "GPT2LMHeadModel"}
REFUSED = {
    "GptOss": ("s_aux", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "Gemma2": ("softcap", {"head_dim": 16, "query_pre_attn_scalar": 16}),  # caps at 50: short rows hardly show it
    "Llama4": ("", {"head_dim": 8, "attention_chunk_size": 16, "num_local_experts": 2, "intermediate_size_mlp": 48}),
    "Lfm2": ("layer 0 is a 'conv' layer", {"layer_types": ["conv", "full_attention"]}),
    "Mamba": ("", {}),
    "Bloom": ("", {"n_head": 4, "n_layer": 2}),
    "GPTJ": ("of their spread", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "GPTNeo": (
        "of their spread",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    ),
    "Falcon": ("of their spread", {}),
}
CONFIGS |= {"Llama4": "Llama4TextConfig"}


def family_of(kit, name, changes):
    family = name.partition(",")[0]
    return kit.small(CLASSES.get(family, f"{family}ForCausalLM"), CONFIGS.get(family, f"{family}Config"), **changes)


def largest_difference(stock, request_ids, reply, temperature=1.0):
    row = (*request_ids, *reply.ids)
    expected = (stock(row) / temperature).log_softmax(-1)
    places = range(len(request_ids) - 1, len(row) - 1)
    return max(
        abs(expected[place, token].item() - logprob)
        for place, token, logprob in zip(places, reply.ids, reply.logprobs, strict=True)
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_log_probs_of_a_conversation_are_those_of_the_whole_row(kit, temperature):
    loaded = kit.tiny()
    stock = kit.stock(loaded)
    asked = []
    async with kit.engine(loaded) as engine:

        async def ask(request):
            asked.append(request)
            return await engine.generate(request)

        replies = await kit.talk(
            ask, opening=280, turns=[(40, 25), (1, 70), (60, 1)], params={"temperature": temperature}
        )
    for request, reply in zip(asked, replies, strict=True):
        assert largest_difference(stock, request.prompt_ids, reply, temperature) < 1e-4


async def test_recorded_log_probs_stay_untruncated_whatever_cuts_the_distribution(kit):
    loaded = kit.tiny()
    params = SamplingParams(temperature=0.7, max_new_tokens=30, top_p=0.8, top_k=9, repetition_penalty=1.4)
    async with kit.engine(loaded) as engine:
        reply = await engine.generate(GenerationRequest("k", kit.ids(50), params))
    assert largest_difference(kit.stock(loaded), kit.ids(50), reply, 0.7) < 1e-4


@pytest.mark.parametrize("penalty", [1.0, 1.3])
async def test_greedy_is_the_greedy_of_generate(kit, penalty):
    loaded, prompt = kit.tiny(), kit.ids(33)
    stock = copy.deepcopy(loaded.model)
    expected = stock.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 33, dtype=torch.long),
        do_sample=False,
        max_new_tokens=60,
        repetition_penalty=penalty,
        eos_token_id=None,
        pad_token_id=1,
    )[0, 33:].tolist()
    params = SamplingParams(temperature=0.0, max_new_tokens=60, repetition_penalty=penalty)
    async with kit.engine(loaded) as engine:
        reply = await engine.generate(GenerationRequest("k", prompt, params))
    assert list(reply.ids) == expected


@pytest.mark.parametrize("name", FAMILIES)
async def test_other_families_give_their_own_log_probs_alone_or_not(kit, name):
    loaded = family_of(kit, name, FAMILIES[name])
    stock = kit.stock(loaded)
    requests = [
        GenerationRequest(f"{n}", kit.ids(n, vocabulary=97), SamplingParams(max_new_tokens=25))
        for n in (1, 14, 90, 300)
    ]
    async with kit.engine(loaded) as engine:
        together = await kit.together(engine, requests)
        turns = await kit.talk(lambda r: engine.generate(narrow(r)), turns=[(5, 20), (9, 30)], opening=12)
    for request, reply in zip(requests, together, strict=True):
        assert largest_difference(stock, request.prompt_ids, reply) < 1e-4
    assert kit.said(together) == kit.said(await kit.alone(loaded, requests))
    async with kit.engine(loaded) as engine:
        cold = await kit.talk(lambda r: engine.generate(narrow(r)), turns=[(5, 20), (9, 30)], opening=12, session=False)
    assert kit.said(turns) == kit.said(cold)


def narrow(request):
    """The same request with ids below 97."""
    ids = tuple(i % 97 for i in request.prompt_ids)
    return GenerationRequest(request.key, ids, request.params, request.sampled_spans, request.session)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
async def test_what_it_would_get_wrong_is_refused(kit, name):
    words, changes = REFUSED[name]
    loaded = family_of(kit, name, changes)
    async with kit.engine(loaded) as engine:
        for _ in range(2):
            with pytest.raises(ModelError, match=f"{type(loaded.model).__name__} can't be driven.*{words}"):
                await engine.generate(GenerationRequest("k", (5, 6), SamplingParams(max_new_tokens=2)))
        assert engine.cached_tokens == 0


@pytest.mark.filterwarnings("ignore")
def test_sinks_are_found_by_their_effect_too(kit, monkeypatch):
    monkeypatch.setattr(packed, "UNSUPPORTED", ())
    loaded = family_of(kit, "GptOss", REFUSED["GptOss"][1])
    with pytest.raises(ModelError, match="of their spread"):
        check_model(PackedModel(loaded.model))


def test_a_window_that_attention_is_not_told_is_refused(kit):
    loaded = kit.small("MistralForCausalLM", "MistralConfig", sliding_window=16)
    assert check_model(PackedModel(loaded.model)) < 1e-5
    # Too wide for the rows that are tried: only the comparison with the config can find it.
    loaded.model.config.sliding_window = 100
    loaded.model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="layer 0 is a 'full_attention' layer, but its attention works with 100"):
        check_model(PackedModel(loaded.model))
    loaded.model.config.layer_types = ["chunked_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="layer 0 is a 'chunked_attention' layer"):
        check_model(PackedModel(loaded.model))


@pytest.mark.parametrize(("dtype", "usual"), [("float32", 1e-5), ("bfloat16", 0.05), ("float16", 0.01)])
def test_the_check_passes_with_room_to_spare(kit, dtype, usual):
    assert check_model(PackedModel(kit.tiny(dtype).model)) < usual
    assert usual * 5 <= (self_check.TOLERANCE if dtype == "float32" else self_check.HALF_TOLERANCE)


def test_rounding_may_upset_a_position_or_two_of_21_and_not_three():
    """Mutation: all positions count in half precision, or the best nine tenths in float32 too."""
    stock = torch.tensor([[1.0, -1.0, 1.0, -1.0]]).repeat(21, 1)
    spread = stock.std().item()
    ours = stock + 0.1
    off = ours.clone()
    off[[4, 17]] += 5
    assert self_check.difference(off, stock, half=True) == pytest.approx(0.1 / spread)
    assert self_check.difference(off, stock, half=False) > 1
    off[9] += 5
    assert self_check.difference(off, stock, half=True) == pytest.approx(5.1 / spread)
    off[0, 0] = float("nan")
    assert math.isnan(self_check.difference(off, stock, half=True))


async def test_weights_that_are_not_finite_are_named(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        request = GenerationRequest("k", kit.ids(9), SamplingParams(max_new_tokens=3))
        await engine.generate(request)
        with torch.no_grad():
            loaded.model.model.norm.weight[0] = float("nan")
        engine.weights_changed(1)
        with pytest.raises(ModelError, match="logits that are not finite"):
            await engine.generate(request)
    with pytest.raises(ModelError, match="weights are not finite"):
        check_model(PackedModel(loaded.model))


async def test_with_longrope_the_context_ends_where_the_rotation_would_change(kit):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [3.0] * 4,
        "factor": 8.0,
    }
    lengths = {"original_max_position_embeddings": 128, "max_position_embeddings": 1024}
    loaded = kit.small("Phi3ForCausalLM", "Phi3Config", rope_parameters=rope, **lengths)
    assert loaded.max_context == 128
    async with kit.engine(loaded) as engine:
        reply = await engine.generate(GenerationRequest("k", kit.ids(100, vocabulary=97)))
        with pytest.raises(ModelError, match="context is 128"):
            await engine.generate(GenerationRequest("k", kit.ids(128, vocabulary=97)))
    assert len(reply.ids) == 28
    assert largest_difference(kit.stock(loaded), kit.ids(100, vocabulary=97), reply) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_the_embedded_model_is_exact_too(kit, dtype):
    loaded = load_model("smollm2-135m-instruct", dtype=dtype, device="cpu")
    requests = [
        GenerationRequest(f"{n}", kit.ids(n, vocabulary=40_000), SamplingParams(max_new_tokens=8))
        for n in (1, 30, 65, 300)
    ]
    async with kit.engine(loaded) as engine:
        together = await kit.together(engine, requests)
        one_by_one = [await engine.generate(request) for request in requests]
    assert kit.said(together) == kit.said(one_by_one)
    if dtype == "float32":
        stock = kit.stock(loaded)
        for request, reply in zip(requests, together, strict=True):
            assert largest_difference(stock, request.prompt_ids, reply) < 1e-4
