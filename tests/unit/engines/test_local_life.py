"""Requests that are cancelled, fail or come too late; engines that are closed, and weights that change."""

import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref

import pytest

from stateset_agents.core.errors import ModelError
from stateset_agents.engines.base import Engine, GenerationRequest, SamplingParams
from stateset_agents.engines.cache import KeyValueCache
from stateset_agents.engines.local import LocalEngine


def long_one(kit, key="long", session=None):
    return GenerationRequest(key, kit.ids(40, key), SamplingParams(max_new_tokens=3000), session=session)


def short_one(kit, key="short", session=None):
    return GenerationRequest(key, kit.ids(30, key), SamplingParams(max_new_tokens=5), session=session)


async def settled(engine, tokens=0):
    """Wait until so many tokens are held; the worker puts rows away between two passes."""
    for _ in range(400):
        if engine.cached_tokens == tokens:
            return
        await asyncio.sleep(5e-3)
    raise AssertionError(f"{engine.cached_tokens} tokens are still held, not {tokens}")


async def grown(engine, tokens):
    """Wait until at least so many tokens are held."""
    while engine.cached_tokens < tokens:  # noqa: ASYNC110 - another thread takes them
        await asyncio.sleep(1e-3)


def slowed(loaded, seconds):
    """Each pass of the model takes at least so long."""
    return loaded.model.base_model.register_forward_pre_hook(lambda *_: time.sleep(seconds))


async def test_it_is_an_engine(kit):
    async with kit.engine() as engine:
        assert isinstance(engine, Engine)


async def test_a_cancelled_task_frees_its_place_at_once(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        tasks = [asyncio.ensure_future(engine.generate(long_one(kit, f"{i}", f"{i}"))) for i in range(20)]
        await asyncio.wait_for(grown(engine, 20 * 256), 20)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )
        await settled(engine)
        widths = kit.passes(loaded)
        await engine.generate(short_one(kit))
        assert widths == [64, 32, 32, 32, 32]


async def test_a_request_cancelled_before_the_worker_sees_it_is_never_computed(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await engine.generate(short_one(kit))
        widths = kit.passes(loaded)
        with engine._wake:
            task = asyncio.ensure_future(engine.generate(long_one(kit)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
    assert widths == []


async def test_a_stream_that_is_closed_early_frees_its_place(kit):
    async with kit.engine() as engine:
        seen = 0
        async with contextlib.aclosing(engine.stream(long_one(kit))) as tokens:
            async for _ in tokens:
                seen += 1
                if seen == 3:
                    break
        await settled(engine)


async def test_tokens_are_streamed_as_they_come(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await engine.generate(short_one(kit, "first"))
        permits, granted = threading.Semaphore(1), []
        hook = loaded.model.base_model.register_forward_pre_hook(lambda *_: granted.append(permits.acquire(timeout=5)))
        async for _ in engine.stream(short_one(kit)):
            permits.release()  # a pass begins only when the token of the pass before has arrived
        hook.remove()
    assert granted == [True] * 5


async def test_a_hundred_requests_some_of_which_leave_and_then_a_normal_one(kit):
    rng = random.Random(11)
    loaded = kit.tiny()
    (expected,) = kit.said(await kit.alone(loaded, [short_one(kit)]))
    async with kit.engine(loaded) as engine:

        async def visit(i):
            await asyncio.sleep(rng.random() * 0.1)
            length = rng.choice([1, 30, 300])
            params = SamplingParams(max_new_tokens=rng.randint(1, 60))
            request = GenerationRequest(f"{i}", kit.ids(length, i % 7), params, session=rng.choice([None, f"{i}"]))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(engine.generate(request), rng.choice([0.001, 0.02, 0.1, 60]))
            engine.release(f"{i}")

        await asyncio.gather(*map(visit, range(100)))
        await settled(engine)
        assert kit.said([await engine.generate(short_one(kit))]) == [expected]
        await settled(engine)
        assert not any(pool.keys or pool.slots for pool in engine._memory._cache._pools.values())
        assert not engine._memory._prompts


async def test_releasing_a_session_that_nobody_knows_is_fine(kit):
    async with kit.engine() as engine:
        engine.release("nobody")
        await engine.generate(short_one(kit))
        engine.release("nobody")


async def test_a_session_released_while_its_reply_is_under_way_keeps_nothing(kit):
    async with kit.engine() as engine:
        task = asyncio.ensure_future(engine.generate(long_one(kit, session="s")))
        await asyncio.sleep(0.02)
        engine.release("s")
        task.cancel()
        reply = asyncio.ensure_future(engine.generate(short_one(kit, session="t")))
        await asyncio.sleep(0)
        engine.release("t")
        await reply
        await settled(engine)


async def test_a_session_keeps_one_row_however_many_replies_it_gets_at_once(kit):
    async with kit.engine() as engine:
        await kit.together(engine, [short_one(kit, f"{i}", "s") for i in range(4)])
        await settled(engine, 256)
        engine.release("s")
        await settled(engine)


async def test_closing_cancels_whoever_waits_and_ends_the_thread(kit):
    engine = LocalEngine(kit.tiny())
    tasks = [asyncio.ensure_future(engine.generate(long_one(kit, f"{i}"))) for i in range(3)]

    async def stream():
        return [token async for token in engine.stream(long_one(kit, "stream"))]

    tasks.append(asyncio.ensure_future(stream()))
    await asyncio.sleep(0.03)
    thread = engine._worker.thread
    await engine.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 4
    assert not thread.is_alive()
    assert engine.cached_tokens == 0
    with pytest.raises(ModelError, match="closed"):
        await engine.generate(short_one(kit))
    with pytest.raises(ModelError, match="closed"):
        await anext(engine.stream(short_one(kit)))
    engine.release("long")
    await engine.aclose()


async def test_closing_cancels_requests_that_came_during_the_last_pass(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await engine.generate(short_one(kit))
        began, go_on = threading.Event(), threading.Event()

        def hold(*_):
            began.set()
            go_on.wait(10)

        loaded.model.base_model.register_forward_pre_hook(hold)
        tasks = [asyncio.ensure_future(engine.generate(short_one(kit, "at work")))]
        await asyncio.to_thread(began.wait)
        tasks.append(asyncio.ensure_future(engine.generate(short_one(kit, "waiting"))))
        closing = asyncio.ensure_future(engine.aclose())
        while not engine._closed:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(1e-3)
        go_on.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        await closing


async def test_an_engine_that_never_worked_is_closed_too(kit):
    await LocalEngine(kit.tiny()).aclose()


@pytest.mark.parametrize("error", [RuntimeError("device lost"), KeyError("layer"), ValueError("shape")])
async def test_a_pass_that_raises_fails_its_requests_and_nothing_else(kit, error):
    loaded = kit.tiny()
    requests = [short_one(kit, f"{i}") for i in range(3)]
    expected = kit.said(await kit.alone(loaded, requests))
    async with kit.engine(loaded) as engine:
        kept = await kit.talk(engine.generate, turns=[(3, 4)])

        def fail(*_):
            hook.remove()
            raise error

        hook = loaded.model.base_model.register_forward_pre_hook(fail)
        with engine._wake:
            tasks = [asyncio.ensure_future(engine.generate(request)) for request in requests]
            await asyncio.sleep(0)
        assert await asyncio.gather(*tasks, return_exceptions=True) == [error] * 3
        assert engine.cached_tokens == 0
        assert kit.said(await kit.together(engine, requests)) == expected
        assert kit.said(await kit.talk(engine.generate, turns=[(3, 4)])) == kit.said(kept)


async def test_who_comes_after_a_failed_pass_does_not_get_its_error(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await engine.generate(short_one(kit))
        began = threading.Event()

        def fail(*_):
            hook.remove()
            began.set()
            time.sleep(0.05)
            raise RuntimeError("device lost")

        hook = loaded.model.base_model.register_forward_pre_hook(fail)
        first = asyncio.ensure_future(engine.generate(short_one(kit, "a")))
        await asyncio.to_thread(began.wait)
        second = asyncio.ensure_future(engine.generate(short_one(kit, "b")))
        with pytest.raises(RuntimeError, match="device lost"):
            await first
        assert len((await second).ids) == 5


async def test_a_row_for_which_there_is_no_memory_gets_the_error_instead_of_waiting_for_ever(kit, monkeypatch):
    async with kit.engine() as engine:
        await engine.generate(short_one(kit))

        def full(*_):
            monkeypatch.undo()
            raise MemoryError("no memory for a slot")

        monkeypatch.setattr(KeyValueCache, "take", full)
        with pytest.raises(MemoryError):
            await asyncio.wait_for(engine.generate(short_one(kit)), 10)
        assert len((await engine.generate(short_one(kit))).ids) == 5


async def test_the_event_loop_goes_on_while_replies_are_computed(kit):
    loaded = kit.tiny()
    slowed(loaded, 0.03)
    async with kit.engine(loaded) as engine:
        task = asyncio.ensure_future(engine.generate(short_one(kit)))
        gaps, last = [], time.perf_counter()
        while not task.done():
            await asyncio.sleep(1e-3)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
    # Eleven passes with those of the check, 30 ms each: a loop that waited for one of them would tick eleven times.
    assert len(gaps) > 40
    assert sorted(gaps)[len(gaps) // 2] < 0.02


def test_one_engine_serves_one_event_loop_after_another(kit):
    engine = LocalEngine(kit.tiny())

    async def first():
        left_behind = asyncio.ensure_future(engine.generate(long_one(kit, session="gone")))
        reply = await engine.generate(short_one(kit))
        assert not left_behind.done()  # asyncio.run cancels it
        return reply

    async def abandoned():
        tokens = engine.stream(long_one(kit, "streamed"))
        await anext(tokens)
        await tokens.aclose()
        return await engine.generate(short_one(kit))

    async def last():
        reply = await engine.generate(short_one(kit))
        await settled(engine)
        await engine.aclose()
        return reply

    replies = [asyncio.run(first()), asyncio.run(abandoned()), asyncio.run(last())]
    assert kit.said(replies) == [kit.said(replies)[0]] * 3


def test_a_loop_that_is_gone_when_its_reply_is_ready_hurts_nobody(kit):
    engine = LocalEngine(kit.tiny())
    loop = asyncio.new_event_loop()
    with engine._wake:
        task = loop.create_task(engine.generate(short_one(kit)))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    del task
    assert len(asyncio.run(engine.generate(short_one(kit))).ids) == 5
    asyncio.run(engine.aclose())


async def test_weights_must_not_change_while_replies_are_under_way(kit):
    async with kit.engine() as engine:
        task = asyncio.ensure_future(engine.generate(long_one(kit)))
        for wait in (0, 0.02):
            await asyncio.sleep(wait)
            with pytest.raises(RuntimeError, match="while replies are being generated"):
                engine.weights_changed(1)
        assert engine.version == 0
        task.cancel()
        await asyncio.sleep(0)
        engine.weights_changed(1)  # waits for the pass in which the cancelled reply still is
        assert (engine.version, engine.cached_tokens) == (1, 0)
        assert (await engine.generate(short_one(kit))).version == 1


async def test_a_model_in_training_mode_is_refused_because_dropout_is_noise(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        loaded.model.train()
        with pytest.raises(ModelError, match=r"training mode.*model\.eval\(\)"):
            await engine.generate(short_one(kit))
        loaded.model.eval()
        assert len((await engine.generate(short_one(kit))).ids) == 5


async def test_an_engine_that_nobody_holds_any_more_goes_with_its_model_and_its_thread(kit):
    """Mutation: the thread, or what is to be done at exit, holds the engine; that is not taken back."""
    loaded = kit.tiny()
    engine = LocalEngine(loaded)
    await engine.generate(short_one(kit))
    model, worker, thread = weakref.ref(loaded.model), weakref.ref(engine._worker), engine._worker.thread
    del engine, loaded
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert model() is None
    gc.collect()
    assert worker() is None  # which is what atexit would call
