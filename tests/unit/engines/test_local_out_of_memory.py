"""Memory that runs out while replies are generated: fewer at once, and the same replies."""

import asyncio
import logging

import pytest
import torch

from stateset_agents.engines.base import GenerationRequest, SamplingParams

PARAMS = SamplingParams(max_new_tokens=12, stop_ids=())


def requests(kit, count=7):
    prompts = [kit.ids(5 + 9 * place, place) for place in range(count)]
    return [GenerationRequest(f"k{place}", ids, PARAMS) for place, ids in enumerate(prompts)]


def limit(engine, slots, *, error=None, after=0):
    """Memory for so many rows of up to 256 tokens, from so many passes on; counts how often it ran out."""
    met = {"calls": 0, "short": 0}

    def check(*_):
        met["calls"] += 1
        if met["calls"] > after and engine.cached_tokens > 256 * slots:
            met["short"] += 1
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine._passes.packed._backbone.register_forward_pre_hook(check)
    return met


def said(replies):
    return [(reply.ids, reply.logprobs, reply.stop_reason) for reply in replies]


@pytest.mark.parametrize("after", [0, 3, 9], ids=["reading prompts", "first tokens", "in the middle"])
async def test_replies_that_begin_again_come_out_the_same_to_the_bit(kit, caplog, after):
    """Mutation: sampled tokens kept when a row begins again; the limit not heeded by `_admit`."""
    async with kit.engine() as free, kit.engine() as short:
        whole = said(await asyncio.gather(*map(free.generate, requests(kit))))
        met = limit(short, 3, after=after)
        with caplog.at_level(logging.WARNING):
            assert said(await asyncio.gather(*map(short.generate, requests(kit)))) == whole
            assert said(await asyncio.gather(*map(short.generate, requests(kit)))) == whole
    assert met["short"] == 1  # what was found out is remembered
    (record,) = caplog.records
    assert record.message.startswith("memory ran out with 7 replies under way (CUDA out of memory.")
    assert record.message.endswith("they begin again, and from here on there are at most 3")


async def test_memory_that_runs_out_while_the_model_is_checked_is_no_fault_of_the_model(kit):
    """Mutation: only torch's own kind of error known by the check."""
    async with kit.engine() as engine:
        met = limit(engine, 0, error=RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            await engine.generate(requests(kit)[0])
    assert met["short"] == 1


async def test_a_stream_that_begins_again_says_nothing_twice(kit):
    """Mutation: `delivered` not heeded."""

    async def streamed(engine, request):
        return [(token.id, token.logprob) async for token in engine.stream(request)]

    async with kit.engine() as free, kit.engine() as short:
        whole = await asyncio.gather(*(streamed(free, request) for request in requests(kit)))
        met = limit(short, 3, after=9)
        assert await asyncio.gather(*(streamed(short, request) for request in requests(kit))) == whole
    assert met["short"] == 1
    assert {len(tokens) for tokens in whole} == {12}


async def test_kept_sessions_are_forgotten_before_a_reply_is_given_up(kit):
    """Mutation: a single reply given up while sessions hold the memory."""
    _, second = requests(kit, 2)
    kept = [GenerationRequest(r.key, r.prompt_ids, PARAMS, session=r.key) for r in requests(kit, 5)]
    async with kit.engine() as engine:
        alone = said([await engine.generate(second)])
        await asyncio.gather(*map(engine.generate, kept))
        met = limit(engine, 2)
        assert said([await engine.generate(second)]) == alone
    assert met["short"] == 1


async def test_a_reply_that_does_not_fit_alone_fails_and_the_engine_goes_on(kit):
    async with kit.engine() as engine:
        met = limit(engine, 0)
        with pytest.raises(torch.OutOfMemoryError):
            await engine.generate(requests(kit, 1)[0])
        assert met["short"] == 1


async def test_another_error_reaches_every_reply(kit):
    async with kit.engine() as engine:
        await engine.generate(requests(kit)[0])  # the model is checked before the first reply
        met = limit(engine, 3, error=RuntimeError("the shapes do not fit"))
        ended = await asyncio.gather(*map(engine.generate, requests(kit)), return_exceptions=True)
    assert [str(error) for error in ended] == ["the shapes do not fit"] * 7
    assert met["short"] == 1
