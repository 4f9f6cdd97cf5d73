"""What ends up in the token rows, written out by hand."""

import asyncio

import pytest

from stateset_agents.agents import AgentConfig, AgentRuntime, EngineFailed, MultiTurnAgent
from stateset_agents.chat import ChatCodec
from stateset_agents.core.errors import ModelError
from stateset_agents.core.outcome import StopReason
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.engines.base import GeneratedToken, Generation
from stateset_agents.models import load_tokenizer

tokenizer = load_tokenizer("tiny")


def ids(tokens):
    found = tokenizer.convert_tokens_to_ids(tokens.split())
    assert None not in found
    return found


class Scripted:
    """An engine that samples the very tokens it is told to; `None` in their place raises."""

    def __init__(self, *replies, reason=None):
        self.version = 3
        self.requests = []
        self.released = []
        self._replies = list(replies)
        self._reason = reason

    async def generate(self, request):
        self.requests.append(request)
        reply = self._replies[len(self.requests) - 1]
        if reply is None:
            raise RuntimeError("it broke")
        tokens = tuple(ids(reply))
        reason = self._reason or (StopReason.STOP if tokens[-1] == 1 else StopReason.LENGTH)
        return Generation(tokens, tuple(-0.5 - i for i in range(len(tokens))), reason, self.version)

    async def stream(self, request):
        final = await self.generate(request)
        for i, token in enumerate(final.ids):
            yield GeneratedToken(token, final.logprobs[i], final if i == len(final.ids) - 1 else None)

    def release(self, session):
        self.released.append(session)

    async def aclose(self):
        pass


def agent_on(engine, *, template=None, max_context=0, **config):
    own = load_tokenizer("tiny")
    own.chat_template = template or own.chat_template
    agent = MultiTurnAgent(AgentConfig("tiny", **config))
    agent.runtime = AgentRuntime(None, ChatCodec(own), engine, max_context)
    return agent


async def converse(fork, *inputs, context=None):
    history = []
    for text in inputs:
        turn = await fork.process_turn(list(history), text, context)
        history += [ConversationTurn("user", text), turn]
    return history


# "Hi" comes as two letters and "yes" as three, not as the tokenizer would cut them: sampled ids are kept as they are.
THREE = ("H i <|im_end|>", "y e s", "Ġyes <|im_end|>")
ROW = """
    <|im_start|> system Ċ B e <|im_end|> Ċ <|im_start|> user Ċ A <|im_end|> Ċ <|im_start|> assistant Ċ
    H i <|im_end|>
    Ċ <|im_start|> user Ċ B <|im_end|> Ċ <|im_start|> assistant Ċ
    y e s
    <|im_end|> Ċ <|im_start|> user Ċ C <|im_end|> Ċ <|im_start|> assistant Ċ
    Ġyes <|im_end|>
"""


async def test_requests_say_key_session_and_what_was_sampled():
    engine = Scripted(*THREE)
    fork = agent_on(engine, system_prompt="Be", temperature=0.9, max_new_tokens=5, top_k=7).fork("k")
    await converse(fork, "A", "B", "C")
    assert [r.key for r in engine.requests] == ["k#0", "k#1", "k#2"]
    assert {r.session for r in engine.requests} == {"k"}
    assert [r.sampled_spans for r in engine.requests] == [(), ((16, 19),), ((16, 19), (29, 32))]
    assert list(engine.requests[2].prompt_ids) == ids(ROW)[:-2]
    params = engine.requests[0].params
    assert (params.temperature, params.max_new_tokens, params.top_k, params.stop_ids) == (0.9, 5, 7, (1,))


async def test_an_edited_reply_is_masked_and_what_follows_it_opens_another_row():
    fork = agent_on(Scripted(*THREE)).fork("k")
    first = await fork.process_turn([], "A")
    first.content = "Ho"
    history = [ConversationTurn("user", "A"), first]
    second = await fork.process_turn(history, "B")
    turns = [*history, ConversationTurn("user", "B"), second]
    assert fork.settle(turns) == 1
    one, two = fork.rows
    assert (sum(one.mask), one.trained_tokens) == (0, 0)
    assert two.ids == ids(
        """<|im_start|> user Ċ A <|im_end|> Ċ <|im_start|> assistant Ċ H o <|im_end|> Ċ
        <|im_start|> user Ċ B <|im_end|> Ċ <|im_start|> assistant Ċ y e s"""
    )
    assert two.mask == [0] * 22 + [1] * 3


async def test_a_turn_that_code_wrote_is_context():
    fork = agent_on(Scripted(*THREE)).fork("k")
    canned = ConversationTurn("assistant", "H")
    turns = [ConversationTurn("user", "A"), canned]
    turns += [ConversationTurn("user", "B"), await fork.process_turn(list(turns), "B")]
    assert fork.settle(turns) == 1
    (row,) = fork.rows
    assert row.mask == [0] * 21 + [1] * 3


async def test_a_turn_that_code_wrote_in_the_middle_goes_on_with_the_row_it_can():
    fork = agent_on(Scripted(*THREE)).fork("k")
    turns = await converse(fork, "A")
    turns += [ConversationTurn("user", "B"), ConversationTurn("assistant", "H")]
    turns += [ConversationTurn("user", "C"), await fork.process_turn(list(turns), "C")]
    assert fork.settle(turns) == 1
    assert sum(row.trained_tokens for row in fork.rows) == 6
    assert tokenizer.decode(fork.rows[-1].ids).count("<|im_start|>assistant\nH<|im_end|>") == 1


async def test_a_reply_that_was_thrown_away_is_never_trained():
    fork = agent_on(Scripted(*THREE)).fork("k")
    await fork.process_turn([], "A")
    kept = await fork.process_turn([], "A")
    assert fork.settle([ConversationTurn("user", "A"), kept]) == 0
    thrown, row = fork.rows
    assert (thrown.trained_tokens, row.trained_tokens) == (0, 3)


async def test_a_reply_that_an_override_wrapped_in_a_turn_of_its_own_is_trained():
    fork = agent_on(Scripted(*THREE)).fork("k")
    text = await fork.generate_response([{"role": "user", "content": "A"}])
    turn = ConversationTurn("assistant", text)
    assert fork.settle([ConversationTurn("user", "A"), turn]) == 0
    assert fork.rows[0].trained_tokens == 3
    assert turn.sampled


async def test_two_equal_turns_need_two_replies():
    fork = agent_on(Scripted(*THREE)).fork("k")
    text = await fork.generate_response([{"role": "user", "content": "A"}])
    assert fork.settle([ConversationTurn("assistant", text), ConversationTurn("assistant", text)]) == 1


async def test_the_memory_window_bounds_what_the_model_reads_and_opens_rows():
    engine = Scripted(*["H i <|im_end|>"] * 5)
    fork = agent_on(engine, system_prompt="S", memory_window=2).fork("k")
    await converse(fork, *"ABCDE")
    assert [tokenizer.decode(r.prompt_ids).count("<|im_start|>user") for r in engine.requests] == [1, 2, 2, 2, 2]
    assert all(tokenizer.decode(r.prompt_ids).startswith("<|im_start|>system\nS<|im_end|>") for r in engine.requests)
    assert [row.trained_tokens for row in fork.rows] == [6, 3, 3, 3]
    assert max(len(row) for row in fork.rows) == len(fork.rows[-1])


async def test_a_window_that_would_begin_with_an_answer_begins_with_the_next_user():
    engine = Scripted(*["H i <|im_end|>"] * 3)
    await converse(agent_on(engine, memory_window=1).fork("k"), *"ABC")
    prompt = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert [tokenizer.decode(r.prompt_ids) for r in engine.requests] == [prompt.format(c) for c in "ABC"]


async def test_the_scenario_tells_the_agent_through_its_system_prompt():
    engine = Scripted("H <|im_end|>", "H <|im_end|>", "H <|im_end|>")
    told = {"agent_context": "Price: 4"}
    await agent_on(engine, system_prompt="S").fork("a").process_turn([], "A", told)
    await agent_on(engine).fork("b").process_turn([], "A", told)
    given = [{"role": "system", "content": "own"}]
    await agent_on(engine, system_prompt="S").fork("c").process_turn(given, "A", {"other": "unseen"})
    systems = [tokenizer.decode(r.prompt_ids).split("<|im_end|>")[0] for r in engine.requests]
    assert systems == ["<|im_start|>system\n" + text for text in ("S\n\nPrice: 4", "Price: 4", "own")]


async def test_a_full_context_ends_without_asking_the_engine():
    engine = Scripted("H i <|im_end|>", "y e s")
    fork = agent_on(engine, max_context=22).fork("k")
    history = await converse(fork, "A", "B")
    last = history[-1]
    assert (last.content, last.span, last.stop_reason) == ("", None, StopReason.CONTEXT)
    assert last.metadata == {"prompt_tokens": 22, "max_context": 22}
    assert len(engine.requests) == 1


async def test_a_reply_is_clipped_to_what_fits_and_says_so():
    engine = Scripted("y e s", "H <|im_end|>")
    turn = await agent_on(engine, max_context=12, max_new_tokens=50).fork("k").process_turn([], "A")
    assert (engine.requests[0].params.max_new_tokens, turn.stop_reason) == (3, StopReason.CONTEXT)
    turn = await agent_on(engine, max_context=12, max_new_tokens=50).fork("k").process_turn([], "A")
    assert turn.stop_reason is StopReason.STOP


async def test_messages_that_do_not_fit_are_an_error_where_nobody_can_be_told_otherwise():
    agent = agent_on(Scripted(), max_context=5)
    with pytest.raises(ModelError, match="the messages have 9 tokens, but the model's context is 5"):
        await agent.generate_response(messages=[{"role": "user", "content": "A"}])
    with pytest.raises(ModelError, match="shorten them or set memory_window"):
        [piece async for piece in agent.stream_response([{"role": "user", "content": "A"}])]


async def test_a_reply_that_failed_leaves_no_trace():
    engine = Scripted(None, "H <|im_end|>", reason=None)
    fork = agent_on(engine).fork("k")
    with pytest.raises(EngineFailed, match="reply k#0: the engine raised RuntimeError: it broke"):
        await fork.process_turn([], "A")
    assert fork.rows == []
    await fork.process_turn([], "A")
    assert [len(row) for row in fork.rows] == [11]
    assert engine.requests[1].session == "k"


async def test_an_agent_that_is_no_fork_keeps_nothing():
    engine = Scripted(*THREE)
    agent = agent_on(engine)
    assert await agent.generate_response([ConversationTurn("user", "A")]) == "Hi"
    assert await agent.generate_response([ConversationTurn("user", "A")]) == "yes"
    assert agent.rows == []
    assert [(r.key, r.session) for r in engine.requests] == [("agent#0", None), ("agent#1", None)]
    agent.release()
    assert engine.released == []


async def test_a_fork_releases_its_session():
    engine = Scripted(*THREE)
    fork = agent_on(engine).fork("k")
    await fork.process_turn([], "A")
    fork.release()
    assert engine.released == ["k"]


async def test_a_stream_gives_the_same_reply_in_pieces_and_the_same_row():
    engine = Scripted("H i <|im_end|>", "y e s")
    fork = agent_on(engine).fork("k")
    question = [{"role": "user", "content": "A"}]
    assert [piece async for piece in fork.stream_response(question)] == ["H", "i"]
    more = [*question, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "B"}]
    assert [piece async for piece in fork.stream_response(more)] == ["y", "e", "s"]
    (row,) = fork.rows
    assert row.mask == [0] * 9 + [1] * 3 + [0] * 10 + [1] * 3


async def test_a_stream_holds_back_a_character_until_it_is_whole():
    euro = "â Ĥ ¬"
    fork = agent_on(Scripted(f"H {euro} i <|im_end|>", f"H {' '.join(euro.split()[:2])}")).fork("k")
    question = [{"role": "user", "content": "A"}]
    assert [piece async for piece in fork.stream_response(question)] == ["H", "€", "i"]
    assert [piece async for piece in fork.stream_response(question)] == ["H", "\ufffd"]


async def test_a_stream_that_is_abandoned_leaves_no_trace():
    fork = agent_on(Scripted("y e s", "H <|im_end|>")).fork("k")
    stream = fork.stream_response([{"role": "user", "content": "A"}])
    assert await anext(stream) == "y"
    await stream.aclose()
    assert fork.rows == []


class Broken(Scripted):
    async def stream(self, request):
        yield GeneratedToken(2, 0.0)
        if self._replies == [None]:
            raise RuntimeError("gone")


@pytest.mark.parametrize(
    ("engine", "message"), [(Broken(None), "RuntimeError: gone"), (Broken(), "without a last token")]
)
async def test_a_stream_that_breaks_is_the_engines_failure(engine, message):
    with pytest.raises(EngineFailed, match=message):
        [piece async for piece in agent_on(engine).stream_response([{"role": "user", "content": "A"}])]


class Refusing(Scripted):
    """Raises what is meant for the operator."""

    async def generate(self, request):
        raise ModelError("the engine is closed")


async def test_an_engines_own_error_reaches_the_operator_as_it_is():
    fork = agent_on(Refusing()).fork("k")
    with pytest.raises(ModelError, match=r"^the engine is closed$"):
        await fork.process_turn([], "A")
    with pytest.raises(ModelError, match=r"^the engine is closed$"):
        [piece async for piece in fork.stream_response([{"role": "user", "content": "A"}])]


class Slow(Scripted):
    async def generate(self, request):
        generation = await super().generate(request)
        await asyncio.sleep(0)
        return generation


async def test_replies_that_are_asked_for_at_once_have_rows_of_their_own():
    engine = Slow("H i <|im_end|>", "y e s", "H <|im_end|>", "i <|im_end|>")
    fork = agent_on(engine).fork("k")
    first, second = await asyncio.gather(fork.process_turn([], "A"), fork.process_turn([], "A"))
    assert [(r.key, r.session) for r in engine.requests] == [("k#0", "k"), ("k#1", None)]
    assert [row.trained_tokens for row in fork.rows] == [3, 3]
    # Both go on from the first row at once: only one of them may extend it.
    history = [ConversationTurn("user", "A"), first]
    await asyncio.gather(fork.process_turn(history, "B"), fork.process_turn(history, "C"))
    assert [row.trained_tokens for row in fork.rows] == [5, 3, 2]
    assert [row.mask.count(1) + row.mask.count(0) for row in fork.rows] == [len(row.ids) for row in fork.rows]
    assert second.content == "yes"
