"""A reply depends on its key, its own tokens and the weights, to the bit. All comparisons here are `==`."""

import asyncio
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.engines import passes
from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.models import attach_lora

LENGTHS = (1, 2, 5, 30, 63, 64, 65, 128, 255, 256, 257, 258, 300, 511, 512, 513, 520, 577, 640, 700)
TURNS = [(1, 12), (2, 1), (25, 300), (7, 40)]


def mixed(kit, count=40):
    rng = random.Random(3)
    return [
        GenerationRequest(
            f"reply {i}",
            kit.ids(LENGTHS[i % len(LENGTHS)], i),
            SamplingParams(max_new_tokens=rng.randint(1, 14), temperature=rng.choice((0.0, 0.7, 1.0)), stop_ids=(3, 4)),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_alone_together_in_another_order_and_streamed(kit, dtype):
    loaded = kit.tiny(dtype)
    requests = mixed(kit)
    expected = kit.said(await kit.alone(loaded, requests))
    async with kit.engine(loaded) as engine:
        assert kit.said([await engine.generate(request) for request in requests]) == expected
        assert kit.said(await kit.together(engine, requests)) == expected
        order = random.Random(5).sample(range(len(requests)), len(requests))
        shuffled = await kit.together(engine, [requests[i] for i in order])
        assert kit.said(shuffled) == [expected[i] for i in order]

        async def streamed(request):
            tokens = [token async for token in engine.stream(request)]
            assert [token.final is None for token in tokens] == [True] * (len(tokens) - 1) + [False]
            final = tokens[-1].final
            assert [token.id for token in tokens] == list(final.ids)
            assert [token.logprob for token in tokens] == list(final.logprobs)
            return final

        assert kit.said(await asyncio.gather(*map(streamed, requests))) == expected


@pytest.mark.parametrize(("dtype", "count"), [("float32", 17), ("float32", 5), ("bfloat16", 33)])
async def test_however_full_the_lanes_are(kit, dtype, count):
    loaded = kit.tiny(dtype)
    request = mixed(kit)[13]
    (expected,) = kit.said(await kit.alone(loaded, [request]))
    async with kit.engine(loaded) as engine:
        others = [GenerationRequest(f"n{i}", kit.ids(20 + i, "n"), request.params) for i in range(count - 1)]
        assert kit.said(await kit.together(engine, [*others, request]))[-1] == expected


async def test_with_two_threads_in_every_pass(kit, monkeypatch):
    monkeypatch.setattr(passes, "SMALL_MODEL", 0)
    torch.set_num_threads(2)
    loaded = kit.tiny()
    requests = mixed(kit, 20)
    expected = kit.said(await kit.alone(loaded, requests))
    async with kit.engine(loaded) as engine:
        assert kit.said(await kit.together(engine, requests)) == expected


@pytest.fixture(scope="module")
def scheduled(kit):
    """A model, requests with repeated prompts, and what each reply is alone."""
    loaded = kit.tiny()
    requests = [
        GenerationRequest(f"s{i}", kit.ids((1, 40, 65, 300, 257)[i % 5]), SamplingParams(max_new_tokens=1 + i % 9))
        for i in range(15)
    ]
    return loaded, requests, kit.said(asyncio.run(kit.alone(loaded, requests)))


@given(arrivals=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_whoever_comes_when_and_whoever_leaves(kit, scheduled, arrivals):
    loaded, requests, expected = scheduled

    async def play():
        async with kit.engine(loaded) as engine:

            async def arrive(number, late, leaves):
                await asyncio.sleep(late * 2e-3)
                task = asyncio.ensure_future(engine.generate(requests[number]))
                if leaves:
                    await asyncio.sleep(3e-3)
                    task.cancel()
                (reply,) = await asyncio.gather(task, return_exceptions=True)
                return number, reply

            for number, reply in await asyncio.gather(*(arrive(*arrival) for arrival in arrivals)):
                if not isinstance(reply, asyncio.CancelledError):
                    assert (reply.ids, reply.logprobs) == expected[number]

    asyncio.run(play())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("opening", [1, 60, 256, 700])
async def test_a_kept_conversation_and_one_rebuilt_from_nothing_at_each_turn(kit, dtype, opening):
    loaded = kit.tiny(dtype)

    async def from_nothing(request):
        (reply,) = await kit.alone(loaded, [request])
        return reply

    expected = await kit.talk(from_nothing, opening=opening, turns=TURNS)
    async with kit.engine(loaded) as engine:
        kept = await kit.talk(engine.generate, opening=opening, turns=TURNS)
        assert kit.said(kept) == kit.said(expected)
        assert sum(r.forwarded_tokens for r in kept) < sum(r.forwarded_tokens for r in expected)


async def test_conversations_that_lose_their_cache_in_any_way(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        expected = kit.said(await kit.talk(engine.generate, turns=TURNS))

        async def released(request):
            engine.release("talk")
            return await engine.generate(request)

        async def interrupted(request):
            failing = asyncio.ensure_future(engine.generate(request))
            await asyncio.sleep(2e-3)
            failing.cancel()
            return await engine.generate(request)

        async def taken_by_another_row(request):
            other = GenerationRequest("x", kit.ids(9), SamplingParams(max_new_tokens=2), session="talk")
            await engine.generate(other)
            return await engine.generate(request)

        engine.release("talk")
        for ask in (released, interrupted, taken_by_another_row):
            assert kit.said(await kit.talk(ask, turns=TURNS)) == expected
    async with kit.engine(loaded, max_cached_tokens=0) as forgetful:

        async def evicted(request):
            await forgetful.generate(GenerationRequest("y", kit.ids(9), SamplingParams(max_new_tokens=2)))
            return await forgetful.generate(request)

        assert kit.said(await kit.talk(evicted, turns=TURNS)) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_many_conversations_at_once_and_one_alone(kit, dtype):
    loaded = kit.tiny(dtype)
    shapes = [[(1 + i % 3, 5 + 37 * (i % 4)), (1 + i % 11, 1 + i), (4, 1)] for i in range(24)]
    async with kit.engine(loaded) as engine:
        many = await asyncio.gather(
            *(kit.talk(engine.generate, name=f"t{i}", opening=1 + 31 * i, turns=t) for i, t in enumerate(shapes))
        )
    for i, turns in enumerate(shapes):
        async with kit.engine(loaded) as engine:
            single = await kit.talk(engine.generate, name=f"t{i}", opening=1 + 31 * i, turns=turns, session=False)
        assert kit.said(many[i]) == kit.said(single)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_prompt_read_for_a_group_and_by_oneself(kit, dtype):
    loaded = kit.tiny(dtype)
    prompt, params = kit.ids(300), SamplingParams(max_new_tokens=12)
    group = [GenerationRequest(f"g{i}", prompt, params, session=f"g{i}") for i in range(20)]
    async with kit.engine(loaded) as engine:
        shared = await kit.together(engine, group[:19])
        late = await engine.generate(group[19])  # finds the prompt in the rows that sessions keep
    assert late.forwarded_tokens == 11
    assert kit.said([*shared, late]) == kit.said(await kit.alone(loaded, group))


async def test_experts_see_one_row_a_pass_because_neighbours_would_change_how_many_rows_each_gets(kit):
    loaded = kit.small("MixtralForCausalLM", "MixtralConfig", num_local_experts=4)
    requests = [
        GenerationRequest(f"e{i}", kit.ids(1 + 9 * i, i, 97), SamplingParams(max_new_tokens=12)) for i in range(9)
    ]
    async with kit.engine(loaded) as engine:
        assert kit.said(await kit.together(engine, requests)) == kit.said(await kit.alone(loaded, requests))


async def test_another_key_gives_another_reply(kit):
    async with kit.engine() as engine:
        asked = [GenerationRequest(key, kit.ids(20), SamplingParams(max_new_tokens=12)) for key in ("a", "b", "a")]
        first, second, third = kit.said(await kit.together(engine, asked))
    assert first == third
    assert first[0] != second[0]


async def test_the_same_ids_sampled_and_read_are_two_prompts(kit):
    loaded = kit.tiny()
    prompt, params = kit.ids(200), SamplingParams(max_new_tokens=12)
    read = GenerationRequest("same", prompt, params, session="reads")
    sampled = GenerationRequest("same", prompt, params, sampled_spans=((40, 150),), session="samples")
    expected = kit.said(await kit.alone(loaded, [read, sampled]))
    assert expected[0][1] != expected[1][1]  # otherwise this could not fail
    async with kit.engine(loaded) as engine:
        assert kit.said([await engine.generate(read), await engine.generate(sampled)]) == expected
        assert kit.said(await kit.together(engine, [sampled, read])) == expected[::-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_with_adapters_too(kit, dtype):
    loaded = kit.tiny(dtype)
    attach_lora(loaded, r=4, alpha=8)
    loaded.model.eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    requests = mixed(kit, 20)
    expected = kit.said(await kit.alone(loaded, requests))
    assert expected != kit.said(await kit.alone(kit.tiny(dtype), requests))
    async with kit.engine(loaded) as engine:
        assert kit.said(await kit.together(engine, requests)) == expected
