"""Reading replies: which tokens stop one, what its text is, and what a template does to it."""

import pytest

from stateset_agents.chat import ChatCodec, TemplateReport, probe
from stateset_agents.core.errors import ModelError


def test_a_reply_is_its_text_without_the_token_that_ended_it(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"))
    assert codec.parse([20, 36, 41, 253, 3531, 30, 2]) == "$49 a month."
    assert codec.parse([20, 36, 41, 253, 3531, 30]) == "$49 a month."
    assert codec.parse([2]) == codec.parse([]) == ""


def test_white_space_and_punctuation_stay_as_they_were_sampled(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"))
    text = " \n It 's 49 , or so . \n"
    assert codec.parse((*codec.encode_reply(text), 2)) == text


def test_special_tokens_are_no_text_but_think_and_tool_call_are(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    ids = codec.encode_reply("<think>Hm</think> a<|im_start|>b<|im_end|>c<tool_call>{}</tool_call><|im_end|>")
    assert codec.parse(ids) == "<think>Hm</think> abc<tool_call>{}</tool_call>"


def test_a_stop_token_that_is_no_special_token_ends_a_reply_and_is_text_before_the_end(tokenizers):
    tokenizer = tokenizers("chatml")
    (stop,) = tokenizer.encode("</tool_call>")
    codec = ChatCodec(tokenizer, model_stop_ids=[stop])
    ids = codec.encode_reply("<tool_call>a</tool_call>, <tool_call>b</tool_call>")
    assert codec.parse(ids) == "<tool_call>a</tool_call>, <tool_call>b"


def test_a_control_string_that_the_model_spelled_in_pieces_is_text(tokenizers):
    codec = ChatCodec(tokenizers("smollm2"))
    spelled = (*codec.encode_reply("<"), *codec.encode_reply("|im_end|>"))
    assert codec.parse((*spelled, 2)) == "<|im_end|>"


def test_a_character_cut_by_length_is_shown_as_a_replacement_character(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    assert codec.parse(codec.encode_reply("a€")[:-1]) == "a\ufffd"


@pytest.mark.parametrize(
    ("name", "model_stop_ids", "stops"),
    [
        ("smollm2", (), ["<|im_end|>"]),  # where pad, EOS and end of turn are one
        ("smollm2", (0, 2), ["<|endoftext|>", "<|im_end|>"]),
        ("llama3", (), ["<|end_of_text|>", "<|eot_id|>"]),
        ("gptoss", (), ["<|return|>"]),  # <|end|> ends the analysis, not the reply
        ("forgetful", (), ["<|im_end|>"]),
        ("headers-only", (), ["<|endoftext|>", "<|im_start|>"]),
    ],
)
def test_these_tokens_stop_a_reply(tokenizers, name, model_stop_ids, stops):
    tokenizer = tokenizers(name)
    codec = ChatCodec(tokenizer, model_stop_ids=model_stop_ids)
    assert [tokenizer.decode([stop]) for stop in codec.stop_ids] == stops


def test_a_template_without_end_tokens_and_a_tokenizer_without_any_stop_by_the_models_ids_alone(build):
    plain = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )  # fmt: skip
    tokenizer = build([], [], plain, eos=None)
    codec = ChatCodec(tokenizer, model_stop_ids=[7])
    assert codec.stop_ids == (7,)
    assert codec.end_of_turn is None
    first = codec.open([{"role": "user", "content": "<|im_end|>"}])
    new = [{"role": "user", "content": "And?"}]
    reply = codec.encode_reply("Hm")
    second = codec.extend(first, reply_ids=reply, reply_text="Hm", new_messages=new, closed=False)
    assert tokenizer.decode(second.ids) == "user: <|im_end|>\nassistant: Hm\nuser: And?\nassistant: "
    closed = codec.extend(first, reply_ids=(*reply, 7), reply_text="Hm", new_messages=new, closed=True)
    assert closed.added_ids == second.added_ids


def test_llama_2_closes_with_a_space_and_eos_which_the_sampled_eos_stands_for(build):
    inst = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content | trim }} [/INST]"
        "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
    )
    tokenizer = build(["<s>", "</s>"], [], inst, eos="</s>")
    codec = ChatCodec(tokenizer)
    assert codec.end_of_turn == "</s>"
    assert codec.reply_header == ()
    first = codec.open([{"role": "user", "content": "Hi"}])
    new = [{"role": "user", "content": "And?"}]
    ids = codec.encode_reply(" Hm</s>")
    second = codec.extend(first, reply_ids=ids, reply_text=codec.parse(ids), new_messages=new, closed=True)
    assert tokenizer.decode(second.ids) == "<s>[INST] Hi [/INST] Hm</s><s>[INST] And? [/INST]"
    cut = codec.extend(first, reply_ids=ids[:-1], reply_text=" Hm", new_messages=new, closed=False)
    assert tokenizer.decode(cut.ids) == "<s>[INST] Hi [/INST] Hm </s><s>[INST] And? [/INST]"


TAKEN = "taken"
ADDED = "taken, and one is added when none is given"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2", ("kept", "kept", "kept", ADDED, "<|im_end|>")),
        ("chatml", ("kept", "kept", "kept", TAKEN, "<|im_end|>")),
        ("qwen2_5", ("kept", "kept", "kept", ADDED, "<|im_end|>")),
        ("qwen3", ("kept", "kept", "rewritten", TAKEN, "<|im_end|>")),
        ("llama3", ("kept", "kept", "kept", TAKEN, "<|eot_id|>")),
        ("gptoss", ("kept", "refused", "kept", TAKEN, "<|end|>")),
        ("gemma", ("kept", "refused", "kept", "refused", None)),
        ("deepseek_r1_distill", ("rewritten", "rewritten", "rewritten", ADDED, None)),
        ("forgetful", ("rewritten", "rewritten", "rewritten", TAKEN, "<|im_end|>")),
        ("headers-only", ("kept", "kept", "kept", TAKEN, None)),
    ],
)
def test_the_probe_reports_what_a_template_keeps(tokenizers, name, expected):
    codec = ChatCodec(tokenizers(name))
    report = probe(codec)
    assert report == TemplateReport(*expected, stop_ids=codec.stop_ids)


def test_the_report_is_one_line_for_the_log(tokenizers):
    assert str(probe(ChatCodec(tokenizers("smollm2")))) == (
        "chat template: user turns kept, tool turns kept, thinking kept, system message taken, and one is added when "
        "none is given, end of turn '<|im_end|>', stop ids [2]"
    )


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("smollm2", ("", "<|im_end|>")),
        ("llama3", ("", "<|eot_id|>")),
        ("gptoss", ("<|channel|>final<|message|>", "<|return|>")),
        ("headers-only", ("", "<|im_start|>")),  # the header of whoever speaks next
    ],
)
def test_a_recorded_reply_is_what_a_model_samples_that_says_it(tokenizers, name, around):
    """Mutation: the token that ends an earlier turn (gpt-oss: <|end|>) for the one that ends the last."""
    tokenizer = tokenizers(name)
    codec = ChatCodec(tokenizer)
    ids = codec.record_reply(" It's $49 a month. \n")
    assert tokenizer.decode(ids) == f"{around[0]} It's $49 a month. \n{around[1]}"
    assert codec.parse(ids) == " It's $49 a month. \n"


def test_a_recorded_reply_has_no_special_token_but_those_of_its_form_and_thinks_as_a_model_does(tokenizers):
    """Mutations: control strings left as they are; <think> spelled in pieces."""
    tokenizer = tokenizers("chatml")
    codec = ChatCodec(tokenizer)
    text = "<think>Hm</think> a<|im_start|>b<|im_end|>\n<|endoftext|>"
    ids = codec.record_reply(text)
    assert codec.parse(ids) == text
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert [token for token in tokens if token.startswith("<") and len(token) > 1] == [
        "<think>",
        "</think>",
        "<|im_end|>",
    ]


def test_a_reply_cannot_be_recorded_where_nothing_ends_one(build):
    tokenizer = build([], ["<a>"], "{% for message in messages %}{{ message.content }}{% endfor %}", eos="<a>")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no token that ends a turn"):
        ChatCodec(tokenizer).record_reply("Hi")
