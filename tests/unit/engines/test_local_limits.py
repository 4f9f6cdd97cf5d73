"""The ends of what can be asked: lengths, contexts, ids, memory."""

import pytest

from stateset_agents.core.errors import ModelError
from stateset_agents.core.outcome import StopReason
from stateset_agents.engines.base import GenerationRequest, SamplingParams
from stateset_agents.engines.local import LocalEngine


def ask(kit, tokens, key="k", **params):
    return GenerationRequest(key, kit.ids(tokens), SamplingParams(**{"max_new_tokens": 4, **params}))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "at least one token"),
        ((1, 2, 512), "outside the vocabulary of 512"),
        ((1, -1), "outside the vocabulary of 512"),
        (tuple([5] * 4096), "has 4096 tokens, but the model's context is 4096"),
        (tuple([5] * 5000), "has 5000 tokens, but the model's context is 4096"),
    ],
    ids=["empty", "too large", "negative", "full", "longer"],
)
async def test_a_prompt_that_cannot_be_read_is_refused_in_words(kit, ids, message):
    async with kit.engine() as engine:
        with pytest.raises(ModelError, match=message):
            await engine.generate(GenerationRequest("k", ids))
        with pytest.raises(ModelError, match=message):
            await anext(engine.stream(GenerationRequest("k", ids)))
        assert engine.cached_tokens == 0


@pytest.mark.parametrize("spans", [((3, 3),), ((5, 4),), ((0, 11),), ((2, 6), (5, 8)), ((6, 8), (2, 4)), ((-1, 4),)])
async def test_spans_that_are_no_ranges_of_the_prompt_are_refused(kit, spans):
    async with kit.engine() as engine:
        with pytest.raises(ModelError, match="not ranges in order in a prompt of 10 tokens"):
            await engine.generate(GenerationRequest("k", kit.ids(10), sampled_spans=spans))


@pytest.mark.parametrize("spans", [((0, 10),), ((0, 1),), ((9, 10),), ((2, 5), (5, 8)), ((0, 1), (1, 2))])
async def test_spans_at_the_ends_and_side_by_side_are_fine(kit, spans):
    loaded = kit.tiny()
    request = GenerationRequest("k", kit.ids(10), SamplingParams(max_new_tokens=4), spans)
    async with kit.engine(loaded) as engine:
        replies = await kit.together(engine, [request, ask(kit, 70, "other"), request])
    (expected,) = kit.said(await kit.alone(loaded, [request]))
    assert kit.said([replies[0], replies[2]]) == [expected] * 2
    assert all(reply.forwarded_tokens <= 13 for reply in (replies[0], replies[2]))


async def test_a_reply_of_one_token_needs_no_step(kit):
    async with kit.engine() as engine:
        reply = await engine.generate(ask(kit, 7, max_new_tokens=1))
    assert (len(reply.ids), reply.stop_reason, reply.forwarded_tokens) == (1, StopReason.LENGTH, 7)


async def test_a_stop_id_ends_the_reply_and_belongs_to_it_even_as_the_first_token(kit):
    async with kit.engine() as engine:
        free = await engine.generate(ask(kit, 7, max_new_tokens=30))
        for place in (0, 4):
            stopped = await engine.generate(ask(kit, 7, max_new_tokens=30, stop_ids=(511, free.ids[place])))
            end = free.ids.index(free.ids[place]) + 1
            assert (stopped.ids, stopped.logprobs) == (free.ids[:end], free.logprobs[:end])
            assert stopped.stop_reason is StopReason.STOP
        last = free.ids[-1]
        assert last not in free.ids[:-1]
        both = await engine.generate(ask(kit, 7, max_new_tokens=30, stop_ids=(last,)))
        assert both.stop_reason is StopReason.STOP  # not LENGTH: the reply is whole


async def test_a_prompt_of_one_token_gets_a_reply(kit):
    async with kit.engine() as engine:
        reply = await engine.generate(ask(kit, 1))
    assert (len(reply.ids), reply.forwarded_tokens) == (4, 4)


@pytest.mark.parametrize(("tokens", "room"), [(4095, 1), (4090, 6)])
async def test_a_reply_ends_where_the_context_is_full(kit, tokens, room):
    async with kit.engine() as engine:
        reply = await engine.generate(ask(kit, tokens, max_new_tokens=100))
        assert (len(reply.ids), reply.stop_reason) == (room, StopReason.CONTEXT)
        exact = await engine.generate(ask(kit, tokens, max_new_tokens=room))
        assert exact.stop_reason is StopReason.LENGTH
        assert exact.ids == reply.ids


async def test_a_reply_grows_through_every_pool(kit):
    loaded = kit.tiny()
    params = SamplingParams(max_new_tokens=900)
    request = GenerationRequest("k", kit.ids(200), params)
    stock = kit.stock(loaded)
    async with kit.engine(loaded) as engine:
        reply, *_ = await kit.together(
            engine, [request, *(ask(kit, 250 + i, f"{i}", max_new_tokens=20) for i in range(9))]
        )
        assert engine.cached_tokens == 0
    logprobs = stock((*request.prompt_ids, *reply.ids)).log_softmax(-1)
    for place, (token, logprob) in enumerate(zip(reply.ids, reply.logprobs, strict=True), start=199):
        assert abs(logprobs[place, token].item() - logprob) < 1e-4


async def test_sessions_not_used_for_longest_are_forgotten_one_by_one(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded, max_cached_tokens=4 * 256) as engine:
        first = {}
        for name in ("a", "b", "c", "d"):
            first[name] = (await kit.talk(engine.generate, name=name, turns=[(5, 0)]))[0]
        assert engine.cached_tokens == 4 * 256

        async def go_on(name):
            prompt = (*kit.ids(30, name), *first[name].ids, 7, 8)
            reply = await engine.generate(
                GenerationRequest(f"{name}2", prompt, SamplingParams(max_new_tokens=1), ((30, 35),), session=None)
            )
            return reply.forwarded_tokens

        async def use(name):
            prompt = (*kit.ids(30, name), *first[name].ids, 7)
            request = GenerationRequest(f"{name}1", prompt, SamplingParams(max_new_tokens=1), ((30, 35),), session=name)
            return (await engine.generate(request)).forwarded_tokens

        assert await use("a") == 2  # its cache was there; now b is the one not used for longest
        await engine.generate(ask(kit, 20, "e"))
        assert engine.cached_tokens == 3 * 256
        assert await use("c") == 2
        assert await use("d") == 2
        assert await use("b") == 36  # the whole row again
        assert await go_on("c") == 37  # without its name a row does not find its session


async def test_rows_at_work_are_never_refused_for_memory(kit):
    loaded = kit.tiny()
    requests = [ask(kit, 300, f"{i}", max_new_tokens=6) for i in range(12)]
    async with kit.engine(loaded, max_cached_tokens=1) as engine:
        assert kit.said(await kit.together(engine, requests)) == kit.said(await kit.alone(loaded, requests))


async def test_a_row_that_grows_makes_room_by_forgetting_sessions(kit):
    async with kit.engine(max_cached_tokens=3 * 256) as engine:
        await kit.talk(engine.generate, name="kept", turns=[(5, 0)])
        await engine.generate(ask(kit, 250, "grows", max_new_tokens=20))
        assert engine.cached_tokens == 0


def test_an_engine_needs_a_lane(kit):
    with pytest.raises(ValueError, match="lanes must be >= 1, not 0"):
        LocalEngine(kit.tiny(), lanes=0)


async def test_one_lane_is_enough(kit):
    loaded = kit.tiny()
    requests = [ask(kit, n, f"{n}") for n in (1, 30, 70)]
    stock = kit.stock(loaded)
    async with kit.engine(loaded, lanes=1) as engine:
        replies = await kit.together(engine, requests)
        assert kit.said([await engine.generate(request) for request in requests]) == kit.said(replies)
    for request, reply in zip(requests, replies, strict=True):
        logprobs = stock((*request.prompt_ids, *reply.ids)).log_softmax(-1)
        for place, (token, logprob) in enumerate(
            zip(reply.ids, reply.logprobs, strict=True), len(request.prompt_ids) - 1
        ):
            assert abs(logprobs[place, token].item() - logprob) < 1e-4
