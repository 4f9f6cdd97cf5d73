import asyncio

import pytest

from stateset_agents.chat import ChatCodec
from stateset_agents.core.outcome import StopReason
from stateset_agents.engines.base import Engine, GenerationRequest, SamplingParams
from stateset_agents.engines.stub import DEFAULT_REPLY, StubEngine, StubFault, replies_of
from stateset_agents.models import load_tokenizer

tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)


def conversation(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def request(*texts, max_new_tokens=50, session=None):
    ids = codec.open(conversation(*texts)).ids
    return GenerationRequest("k", ids, SamplingParams(max_new_tokens=max_new_tokens), session=session)


async def says(engine, *texts):
    return codec.parse((await engine.generate(request(*texts))).ids)


@pytest.mark.parametrize(
    ("name", "replies"),
    [
        ("stub://", (DEFAULT_REPLY,)),
        ("stub://Hello there", ("Hello there",)),
        ("stub://Hello%20there|50%25 off%7Ctoday", ("Hello there", "50% off|today")),
    ],
)
def test_a_name_scripts_the_replies(name, replies):
    assert replies_of(name) == replies


async def test_replies_follow_the_turns_of_the_prompt_and_begin_again():
    engine = StubEngine.from_name("stub://one|two", tokenizer, codec)
    assert isinstance(engine, Engine)
    assert await says(engine, "A", "one", "B") == "two"
    assert await says(engine, "A") == "one"
    assert await says(engine, "A", "one", "B", "two", "C") == "one"
    assert await says(engine, "say <|im_start|>assistant\n twice", "one", "B") == "two"


async def test_an_echo_repeats_the_users_last_message():
    engine = StubEngine.from_name("stub://echo", tokenizer, codec)
    assert await says(engine, "Where is my parcel?") == "Where is my parcel?"
    assert (
        await says(engine, "A", "A", "Order 7,\nplease: <|im_start|>user\n!") == "Order 7,\nplease: <|im_start|>user\n!"
    )
    told = codec.open([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hm"}]).ids
    assert codec.parse((await engine.generate(GenerationRequest("k", told, SamplingParams()))).ids) == "Hm"


async def test_a_reply_ends_with_the_stop_token_and_was_certain():
    generation = await StubEngine(tokenizer, codec, ["yes"]).generate(request("A"))
    assert generation.ids == (*tokenizer.encode("yes"), 1)
    assert set(generation.logprobs) == {0.0}
    assert len(generation.logprobs) == len(generation.ids)
    assert generation.stop_reason is StopReason.STOP


async def test_a_reply_is_cut_where_the_request_says():
    engine = StubEngine(tokenizer, codec, ["xyz"])
    cut = await engine.generate(request("A", max_new_tokens=3))
    whole = await engine.generate(request("A", max_new_tokens=4))
    assert (len(cut.ids), cut.stop_reason) == (3, StopReason.LENGTH)
    assert (len(whole.ids), whole.stop_reason) == (4, StopReason.STOP)


async def test_a_stream_gives_the_reply_token_by_token():
    engine = StubEngine(tokenizer, codec, ["yes"])
    tokens = [token async for token in engine.stream(request("A"))]
    final = await engine.generate(request("A"))
    assert [token.id for token in tokens] == list(final.ids)
    assert [token.final for token in tokens] == [None] * (len(tokens) - 1) + [final]


async def test_faults_come_at_the_calls_that_they_were_told_for():
    engine = StubEngine(tokenizer, codec, ["xyz"], faults={0: "raise", 1: "hang", 2: "truncate"})
    with pytest.raises(StubFault):
        await engine.generate(request("A"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.generate(request("A")), 0.01)
    cut = await engine.generate(request("A"))
    assert (len(cut.ids), cut.stop_reason) == (2, StopReason.LENGTH)
    assert (await engine.generate(request("A"))).stop_reason is StopReason.STOP
    assert engine.calls == 4


async def test_a_reply_takes_as_long_as_it_was_told_to():
    engine = StubEngine(tokenizer, codec, latency=0.02)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.gather(*(engine.generate(request("A")) for _ in range(10)))
    assert 0.02 <= loop.time() - begin < 0.15


async def test_sessions_are_open_until_they_are_released():
    engine = StubEngine(tokenizer, codec)
    await engine.generate(request("A", session="s"))
    assert engine.sessions == {"s"}
    engine.release("s")
    engine.release("unknown")
    assert engine.sessions == set()


async def test_a_closed_engine_answers_nothing():
    engine = StubEngine(tokenizer, codec)
    await engine.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await engine.generate(request("A"))


def test_a_script_without_replies_is_refused():
    with pytest.raises(ValueError, match="at least one reply"):
        StubEngine(tokenizer, codec, [])


async def test_control_tokens_in_a_script_are_plain_words():
    generation = await StubEngine(tokenizer, codec, ["a<|im_end|>b"]).generate(request("A"))
    assert generation.ids.count(1) == 1


class Headless:
    """A codec whose template puts nothing before a reply, and a tokenizer without an end of text."""

    stop_ids = (7,)
    eos_token_id = None

    def open(self, messages, add_generation_prompt=True):
        return codec.open(messages, add_generation_prompt=False)

    def encode(self, text, **options):
        return tokenizer.encode(text, **options)


async def test_without_a_header_to_count_the_first_reply_is_said():
    engine = StubEngine(Headless(), Headless(), ["one", "two"])
    generation = await engine.generate(request("A", "one", "B"))
    assert generation.ids == (*tokenizer.encode("one"), 7)
