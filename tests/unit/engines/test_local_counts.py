"""How many tokens and passes the engine needs, counted exactly."""

import asyncio

from stateset_agents.engines.base import GenerationRequest, SamplingParams


async def warmed_up(kit, engine):
    """The first reply also pays for the check of the model."""
    await engine.generate(GenerationRequest("first", kit.ids(1, "first"), SamplingParams(max_new_tokens=1)))


async def test_a_group_reads_its_prompt_once_and_each_turn_only_what_came_since(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await warmed_up(kit, engine)
        widths, before = kit.passes(loaded), engine.forwarded_tokens
        prompt = kit.ids(300)
        rows = [list(prompt) for _ in range(8)]
        spans = [[] for _ in rows]
        for turn, (reply_tokens, answer) in enumerate([(10, 20), (6, 30), (8, 0)]):
            replies = await kit.together(
                engine,
                [
                    GenerationRequest(
                        f"{i}#{turn}",
                        tuple(rows[i]),
                        SamplingParams(max_new_tokens=reply_tokens),
                        tuple(spans[i]),
                        f"{i}",
                    )
                    for i in range(8)
                ],
            )
            # Turn 0: the prompt once, by the first; later: the last sampled token and the user's answer. A reply's
            # last token is not put through the model before something follows it.
            own = reply_tokens - 1
            read = {0: [300] + [0] * 7, 1: [21] * 8, 2: [31] * 8}[turn]
            assert sorted((r.forwarded_tokens for r in replies), reverse=True) == [tokens + own for tokens in read]
            # 300 = 256 + 44; eight pieces of 21 tokens, three of which fit into 64; eight of 31, two of which do.
            reading = {0: [256, 64], 1: [64] * 3, 2: [64] * 4}[turn]
            assert widths == [*reading, *[32] * own]
            widths.clear()
            for i, reply in enumerate(replies):
                spans[i].append((len(rows[i]), len(rows[i]) + reply_tokens))
                rows[i] += [*reply.ids, *kit.ids(answer, f"{i} {turn}")]
        unique = 300 + sum(len(row) - 300 for row in rows)
        assert engine.forwarded_tokens - before == unique - 8


async def test_a_prompt_that_two_rows_rebuild_from_nothing_goes_through_the_model_once(kit):
    prompt, params = kit.ids(100), SamplingParams(max_new_tokens=5)
    asked = [GenerationRequest(f"{i}", prompt, params, ((20, 30), (60, 61))) for i in range(3)]
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await warmed_up(kit, engine)
        widths = kit.passes(loaded)
        replies = await kit.together(engine, asked)
    assert sorted(reply.forwarded_tokens for reply in replies) == [4, 4, 104]
    # [0, 20), nine single steps, [29, 60), the rest in one piece, four steps of three rows each.
    assert widths == [64, *[32] * 9, 64, 64, *[32] * 4]


async def test_a_shared_prompt_lives_as_long_as_any_row_that_holds_it(kit):
    prompt, params = kit.ids(120), SamplingParams(max_new_tokens=2)
    async with kit.engine() as engine:
        for name in ("a", "b", "c"):
            await engine.generate(GenerationRequest(name, prompt, params, session=name))
        engine.release("a")
        engine.release("b")
        assert (await engine.generate(GenerationRequest("d", prompt, params))).forwarded_tokens == 1
        engine.release("c")
        assert (await engine.generate(GenerationRequest("e", prompt, params))).forwarded_tokens == 121


async def test_a_finished_reply_costs_no_further_pass_and_the_last_token_none_at_all(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded, lanes=4) as engine:
        await warmed_up(kit, engine)
        widths = kit.passes(loaded)
        lengths = [1, 2, 2, 3, 7]
        asked = [GenerationRequest(f"{n}", kit.ids(5), SamplingParams(max_new_tokens=n)) for n in lengths]
        await kit.together(engine, asked)
    # Read once; after the first token four rows are left, which is one pass of four lanes; the longest decides.
    assert widths == [64, *[4] * 6]


async def test_five_replies_on_four_lanes_take_two_passes_only_while_all_five_go_on(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded, lanes=4) as engine:
        await warmed_up(kit, engine)
        widths = kit.passes(loaded)
        asked = [GenerationRequest(f"{n}", kit.ids(5), SamplingParams(max_new_tokens=n)) for n in (9, 9, 9, 9, 4)]
        await kit.together(engine, asked)
    assert widths == [64, *[4] * (3 * 2 + 5)]


async def test_prompts_are_packed_into_few_passes(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await warmed_up(kit, engine)
        widths = kit.passes(loaded)
        lengths = [100, 101, 155, 156, 20, 24, 40, 44]  # 156 + 100, 155 + 101; 44 + 20, 40 + 24
        asked = [GenerationRequest(f"{n}", kit.ids(n), SamplingParams(max_new_tokens=1)) for n in lengths]
        await kit.together(engine, asked)
    assert sorted(widths) == [64, 64, 256, 256]


async def test_an_idle_engine_runs_no_pass(kit):
    loaded = kit.tiny()
    async with kit.engine(loaded) as engine:
        await warmed_up(kit, engine)
        widths = kit.passes(loaded)
        engine.release("nobody")
        await asyncio.sleep(0.05)
    assert widths == []
