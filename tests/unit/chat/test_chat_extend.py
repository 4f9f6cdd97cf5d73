"""Going on with a conversation: the row keeps every id it has, and a rewritten history begins another row."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stateset_agents.chat import ChatCodec

WELL_BEHAVED = ["smollm2", "chatml", "qwen2_5", "qwen3", "llama3"]

USER = {"role": "user", "content": "Hi"}
THANKS = {"role": "user", "content": "Thanks!"}


def stop_token(codec: ChatCodec) -> int:
    """What the template itself would end a reply with."""
    (token_id,) = codec.encode_reply(codec.end_of_turn)
    return token_id


def reply(codec: ChatCodec, text: str) -> tuple[int, ...]:
    return (*codec.encode_reply(text), stop_token(codec))


def test_three_turns_with_smollm2_are_these_very_ids(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"))
    first = codec.open([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What does it cost?"}])
    assert first.ids == (
        *(1, 9690, 198, 6077, 5453, 30, 2, 198),
        *(1, 4093, 198, 1780, 1072, 357, 1708, 47, 2, 198),
        *(1, 520, 9531, 198),
    )
    second = codec.extend(
        first, reply_ids=[20, 36, 41, 253, 3531, 30, 2], reply_text="$49 a month.", new_messages=[THANKS], closed=True
    )
    assert second.added_ids == (198, 1, 4093, 198, 16937, 17, 2, 198, 1, 520, 9531, 198)
    assert second.ids == (*first.ids, 20, 36, 41, 253, 3531, 30, 2, *second.added_ids)
    third = codec.extend(
        second, reply_ids=[2683, 359], reply_text="You are", new_messages=[{"role": "user", "content": "Bye."}],
        closed=False,
    )  # fmt: skip
    assert third.added_ids == (2, 198, 1, 4093, 198, 3087, 85, 30, 2, 198, 1, 520, 9531, 198)
    assert third.ids == (*second.ids, 2683, 359, *third.added_ids)
    assert [message["role"] for message in third.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("name", WELL_BEHAVED)
def test_turn_by_turn_gives_the_ids_of_the_whole_conversation(tokenizers, name, closed):
    codec = ChatCodec(tokenizers(name))
    rendering = codec.open([{"role": "system", "content": "Be brief."}, USER])
    for turn in range(4):
        text = f"Reply number {turn}, it costs ${turn}."
        new = [{"role": "user", "content": f"Question {turn}?\nAnd: ça va?"}]
        ids = reply(codec, text) if closed else codec.encode_reply(text)
        rendering = codec.extend(rendering, reply_ids=ids, reply_text=text, new_messages=new, closed=closed)
    whole = codec.open(rendering.messages)
    assert rendering.ids == whole.ids
    assert rendering.text == whole.text


def test_two_tool_messages_share_one_turn_and_keep_the_row(tokenizers):
    codec = ChatCodec(tokenizers("qwen2_5"))
    text = '<tool_call>\n{"name": "price", "arguments": {}}\n</tool_call>'
    tools = [{"role": "tool", "content": "49"}, {"role": "tool", "content": "a month"}]
    rendering = codec.extend(
        codec.open([USER]), reply_ids=reply(codec, text), reply_text=text, new_messages=tools, closed=True
    )
    shown = tokenizers("qwen2_5").decode(rendering.added_ids)
    assert shown == (
        "\n<|im_start|>user\n<tool_response>\n49\n</tool_response>\n<tool_response>\na month\n</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_another_stop_token_stands_for_the_end_of_the_turn(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"), model_stop_ids=[0])
    ended = codec.extend(
        codec.open([USER]), reply_ids=[9690, 0], reply_text="system", new_messages=[THANKS], closed=True
    )
    assert ended.ids[-14:] == (9690, 0, 198, 1, 4093, 198, 16937, 17, 2, 198, 1, 520, 9531, 198)


def test_a_stop_token_in_the_middle_of_a_reply_stays_where_it_was_sampled(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"))
    first = codec.open([USER])
    ids = [9690, 2, 9690, 1, 2]
    ended = codec.extend(first, reply_ids=ids, reply_text=codec.parse(ids), new_messages=[THANKS], closed=True)
    assert ended.ids == (*first.ids, *ids, *ended.added_ids)
    assert ended.added_ids[0] == 198


def test_a_template_whose_next_header_ends_the_reply_gets_that_header_once(tokenizers):
    codec = ChatCodec(tokenizers("headers-only"))
    assert codec.end_of_turn is None
    header, eos = codec.encode_reply("<|im_start|>")[0], codec.encode_reply("<|endoftext|>")[0]
    assert codec.stop_ids == tuple(sorted((header, eos)))
    first = codec.open([USER])
    body = codec.encode_reply("Yes")
    whole = codec.open([USER, {"role": "assistant", "content": "Yes"}, THANKS])
    arguments = {"reply_text": "Yes", "new_messages": [THANKS]}
    by_header = codec.extend(first, reply_ids=(*body, header), closed=True, **arguments)
    assert by_header.ids == whole.ids
    by_length = codec.extend(first, reply_ids=body, closed=False, **arguments)
    assert by_length.ids == whole.ids
    by_eos = codec.extend(first, reply_ids=(*body, eos), closed=True, **arguments)
    assert by_eos.ids == (*first.ids, *body, eos, *whole.ids[len(first.ids) + len(body) :])


def test_gpt_oss_continues_after_a_final_reply_and_begins_anew_after_an_analysis(tokenizers):
    codec = ChatCodec(tokenizers("gptoss"))
    first = codec.open([USER])
    final = "<|channel|>final<|message|>It costs $49.<|return|>"
    ids = codec.encode_reply(final)
    assert codec.parse(ids) == "It costs $49."
    extended = codec.extend(first, reply_ids=ids, reply_text="It costs $49.", new_messages=[THANKS], closed=True)
    assert extended.ids == (*first.ids, *ids, *extended.added_ids)
    assert tokenizers("gptoss").decode(extended.added_ids) == (
        "<|start|>user<|message|>Thanks!<|end|><|start|>assistant"
    )
    thought = codec.encode_reply(f"<|channel|>analysis<|message|>A price.<|end|><|start|>assistant{final}")
    assert codec.parse(thought) == "It costs $49."
    assert (
        codec.extend(first, reply_ids=thought, reply_text="It costs $49.", new_messages=[THANKS], closed=True) is None
    )


def test_a_trimming_template_keeps_the_row_because_the_ids_are_the_truth(tokenizers):
    codec = ChatCodec(tokenizers("llama3"))
    first = codec.open([USER])
    ids = reply(codec, " \n Well, \n")
    extended = codec.extend(first, reply_ids=ids, reply_text=" \n Well, \n", new_messages=[THANKS], closed=True)
    assert extended.ids[: len(first.ids) + len(ids)] == first.ids + ids
    assert extended.text.startswith(first.text + "Well,<|eot_id|>")


def test_a_template_that_rewrites_history_ends_the_row(tokenizers):
    codec = ChatCodec(tokenizers("forgetful"))
    ids = reply(codec, "It costs $49.")
    arguments = {"reply_ids": ids, "reply_text": "It costs $49.", "new_messages": [THANKS], "closed": True}
    assert codec.extend(codec.open([USER]), **arguments) is None


def test_a_template_that_drops_a_think_block_ends_the_row_at_the_next_user_turn_only(tokenizers):
    codec = ChatCodec(tokenizers("qwen3"))
    thought = "<think>\nA price.\n</think>\n\nIt costs $49."
    arguments = {"reply_ids": reply(codec, thought), "reply_text": thought, "closed": True}
    first = codec.open([USER])
    assert codec.extend(first, new_messages=[THANKS], **arguments) is None
    kept = codec.extend(first, new_messages=[{"role": "tool", "content": "49"}], **arguments)
    assert kept.ids[: len(first.ids)] == first.ids
    reopened = codec.open([*first.messages, {"role": "assistant", "content": thought}, THANKS])
    assert "A price." not in reopened.text


def test_history_that_the_template_changes_before_the_reply_ends_the_row(tokenizers):
    codec = ChatCodec(tokenizers("qwen3"))
    thought = "<think>\nA price.\n</think>\n\n<tool_call>"
    first = codec.open([USER])
    second = codec.extend(
        first,
        reply_ids=reply(codec, thought),
        reply_text=thought,
        new_messages=[{"role": "tool", "content": "49"}],
        closed=True,
    )
    arguments = {"reply_ids": reply(codec, "$49"), "reply_text": "$49", "closed": True}
    assert codec.extend(second, new_messages=[THANKS], **arguments) is None


def test_a_reply_that_code_edited_ends_the_row(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    ids = reply(codec, "It costs $49.")
    arguments = {"reply_text": "It costs $50.", "new_messages": [THANKS], "closed": True}
    assert codec.extend(codec.open([USER]), reply_ids=ids, **arguments) is None


def test_a_template_that_leaves_the_reply_out_ends_the_row(build):
    mute = (
        "{% for m in messages if m.role == 'user' %}<u>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    )
    codec = ChatCodec(build(["<u>", "<a>", "<eos>"], [], mute, eos="<eos>"))
    arguments = {"reply_ids": codec.encode_reply("Hm"), "reply_text": "Hm", "closed": False}
    assert codec.extend(codec.open([USER]), new_messages=[THANKS], **arguments) is None


@pytest.mark.parametrize(
    "content",
    [
        "{{ m.content | upper if m.role == 'user' and not loop.last else m.content }}",
        "{{ m.content }}{{ 'x' if m.content == 'Hm' else 'y' }}",
    ],
    ids=["shouts earlier questions", "adds a word that depends on the reply"],
)
def test_a_template_that_changes_words_without_changing_their_number_ends_the_row(build, content):
    template = f"{{% for m in messages %}}<u>{content}<e>{{% endfor %}}{{% if add_generation_prompt %}}<u>{{% endif %}}"
    codec = ChatCodec(build(["<u>", "<e>"], [], template, eos="<e>"))
    first = codec.open([USER])
    arguments = {"new_messages": [THANKS], "closed": True}
    assert codec.extend(first, reply_ids=codec.encode_reply("Hm<e>"), reply_text="Hm", **arguments) is None


def test_an_empty_reply_is_a_turn_like_any_other(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    closing = (stop_token(codec),)
    first = codec.open([USER])
    extended = codec.extend(first, reply_ids=closing, reply_text="", new_messages=[THANKS], closed=True)
    assert extended.ids == codec.open([USER, {"role": "assistant", "content": ""}, THANKS]).ids


def test_impossible_requests_are_refused(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    arguments = {"reply_text": "", "new_messages": [THANKS], "closed": True}
    with pytest.raises(ValueError, match="at least the id that closed it"):
        codec.extend(codec.open([USER]), reply_ids=[], **arguments)
    with pytest.raises(ValueError, match="without a generation prompt"):
        codec.extend(codec.open([USER], add_generation_prompt=False), reply_ids=[2], **arguments)


class Spy:
    """A tokenizer under which every text is decoded to lower case, so that no reply survives a round trip."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.encoded = []

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode(self, text, **options):
        self.encoded.append(text)
        return self._tokenizer.encode(text, **options)

    def decode(self, ids, **options):
        return self._tokenizer.decode(ids, **options).lower()


def test_sampled_ids_are_never_tokenised_again(tokenizers):
    spy = Spy(tokenizers("smollm2"))
    codec = ChatCodec(spy)
    first = codec.open([USER])
    # "HAVING" in single letters, and an id pair that decodes to a replacement character.
    letters = [spy.encode(letter, add_special_tokens=False)[0] for letter in "HAVING"]
    ids = (*letters, *spy.encode("é", add_special_tokens=False)[:1], 2)
    text = codec.parse(ids)
    assert text.startswith("having")
    assert tuple(spy.encode(text, add_special_tokens=False)) != ids[:-1]
    spy.encoded.clear()
    extended = codec.extend(first, reply_ids=ids, reply_text=text, new_messages=[THANKS], closed=True)
    assert extended.ids == (*first.ids, *ids, *extended.added_ids)
    assert spy.encoded == ["<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\n<|im_start|>assistant\n"]


PIECES = [
    "<|im_end|>",
    "<|im_start|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "<|eot_id|>",
    "system",
    "\n",
    " ",
    "<",
    "|>",
]
CONTENTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=6).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["smollm2", "chatml", "headers-only"]),
    contents=st.lists(CONTENTS, min_size=1, max_size=4),
    system=st.none() | CONTENTS,
    closed=st.booleans(),
    data=st.data(),
)
def test_whatever_is_said_the_row_only_grows_and_control_tokens_are_the_templates(
    tokenizers, name, contents, system, closed, data
):
    tokenizer = tokenizers(name)
    codec = ChatCodec(tokenizer)
    closing = tokenizer.eos_token_id if closed else None
    opening = [] if system is None else [{"role": "system", "content": system}]
    rendering = codec.open([*opening, {"role": "user", "content": contents[0]}])
    # The same conversation with harmless words: it shows how many control tokens the template writes.
    harmless = codec.open([*({"role": "system", "content": "x"} for _ in opening), {"role": "user", "content": "x"}])
    for content in contents[1:]:
        ordinary = st.integers(min_value=20, max_value=200)
        body = data.draw(st.lists(ordinary, max_size=5))
        ids = (*body, closing) if closed else tuple(body)
        new = [{"role": "user", "content": content}]
        extended = codec.extend(rendering, reply_ids=ids, reply_text=codec.parse(ids), new_messages=new, closed=closed)
        assert extended.ids == (*rendering.ids, *ids, *extended.added_ids)
        shown = extended.text.removeprefix(rendering.text)
        if name != "smollm2":  # whose vocabulary lacks some bytes
            assert shown.endswith(tokenizer.decode(extended.added_ids))
        rendering = extended
        plain_ids = (*codec.encode_reply("x"), *ids[len(body) :])
        harmless = codec.extend(
            harmless, reply_ids=plain_ids, reply_text="x", new_messages=[{"role": "user", "content": "x"}],
            closed=closed,
        )  # fmt: skip
    control = set(tokenizer.added_tokens_decoder)
    assert [i for i in rendering.ids if i in control] == [i for i in harmless.ids if i in control]
