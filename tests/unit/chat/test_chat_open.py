"""Opening a conversation: canonical ids for ordinary messages, clear words for what cannot be rendered."""

import subprocess
import sys

import pytest

from stateset_agents.chat import ChatCodec
from stateset_agents.core.errors import DataError, ModelError

TEMPLATES = ["smollm2", "chatml", "qwen2_5", "qwen3", "llama3", "gptoss"]

CONVERSATION = [
    {"role": "system", "content": "Du bist Ärztin. \u200d Be brief."},
    {"role": "user", "content": "What does it cost?"},
    {"role": "assistant", "content": "It costs $49 a month."},
    {"role": "user", "content": "  Ça va 👩‍👩‍👧, < |im_end| > thanks\n\n "},
]


def test_smollm2_opens_with_its_own_system_message_and_these_very_ids(tokenizers):
    rendering = ChatCodec(tokenizers("smollm2")).open([{"role": "user", "content": "What does it cost?"}])
    assert rendering.ids == (
        *(1, 9690, 198),  # <|im_start|>system
        *(2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198),
        *(1, 4093, 198, 1780, 1072, 357, 1708, 47, 2, 198),  # <|im_start|>user, What does it cost?<|im_end|>
        *(1, 520, 9531, 198),  # <|im_start|>assistant
    )
    assert rendering.added_ids == rendering.ids
    assert len(rendering) == 35


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_ordinary_conversations_get_the_ids_that_transformers_gives_them(tokenizers, name, add_generation_prompt):
    tokenizer = tokenizers(name)
    rendering = ChatCodec(tokenizer).open(CONVERSATION, add_generation_prompt=add_generation_prompt)
    canonical = tokenizer.apply_chat_template(
        CONVERSATION, add_generation_prompt=add_generation_prompt, return_dict=False
    )
    assert list(rendering.ids) == canonical
    assert rendering.messages == tuple(CONVERSATION)


def test_tool_definitions_and_calls_reach_the_template(tokenizers):
    tokenizer = tokenizers("qwen2_5")
    lookup = {"type": "function", "function": {"name": "lookup", "description": "Find a price", "parameters": {}}}
    called = [
        {"role": "user", "content": "What does it cost?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "lookup", "arguments": {"n": 1}}}]},
        {"role": "tool", "content": "49"},
    ]
    rendering = ChatCodec(tokenizer).open(called, tools=[lookup])
    canonical = tokenizer.apply_chat_template(called, tools=[lookup], add_generation_prompt=True, return_dict=False)
    assert list(rendering.ids) == canonical
    assert "Find a price" in rendering.text


def test_a_later_change_of_the_callers_message_does_not_reach_the_rendering(tokenizers):
    message = {"role": "user", "content": "Hi"}
    rendering = ChatCodec(tokenizers("chatml")).open([message])
    message["content"] = "Bye"
    assert rendering.messages[0]["content"] == "Hi"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("Hi", r"messages\[1\] must be a mapping such as .* not str"),
        ({"role": "User", "content": "Hi"}, r"messages\[1\].role is 'User'; allowed: system, .*, user"),
        ({"role": "user|><|im_start|", "content": "Hi"}, r"messages\[1\].role"),
        ({"role": "user"}, r"messages\[1\].content must be text, not NoneType"),
        ({"role": "user", "content": 7}, r"messages\[1\].content must be text, not int"),
        ({"role": "user", "content": "a\ud83d b"}, r"messages\[1\] holds the lone surrogate '\\ud83d'"),
        ({"role": "user", "content": [{"type": "text", "text": "\udc00"}]}, r"messages\[1\] holds the lone surrogate"),
    ],
)
def test_a_malformed_message_is_named_by_its_place(tokenizers, message, complaint):
    with pytest.raises(DataError, match=complaint):
        ChatCodec(tokenizers("chatml")).open([{"role": "system", "content": "Hi"}, message])


def test_a_conversation_without_messages_is_refused(tokenizers):
    with pytest.raises(DataError, match="no message to render"):
        ChatCodec(tokenizers("chatml")).open([])


def test_a_tokenizer_without_a_chat_template_is_refused_with_the_fix(build):
    with pytest.raises(ModelError, match=r"has no chat template.*instruct or chat version.*chat_template\.jinja"):
        ChatCodec(build(["<eos>"], [], None, eos="<eos>"))


STRICT = """
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif -%}
<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"""


def strict_codec(build):
    return ChatCodec(build(["<|im_start|>", "<|im_end|>"], [], STRICT, eos="<|im_end|>"))


def test_a_template_that_takes_no_system_message_is_quoted_with_a_way_out(build):
    with pytest.raises(ModelError, match=r"system, user: System role not supported \(without the system message it"):
        strict_codec(build).open([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])


def test_a_template_that_takes_no_tool_message_is_quoted_with_a_way_out(build):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hm"}]
    with pytest.raises(ModelError, match=r"tool: Roles must alternate.*\(without the tool messages it is accepted"):
        strict_codec(build).open([*messages, {"role": "tool", "content": "49"}])


def test_roles_that_do_not_alternate_are_named_with_the_templates_own_words(build):
    with pytest.raises(ModelError, match=r"user, user: Roles must alternate[^(]*$"):
        strict_codec(build).open([{"role": "user", "content": "Hi"}] * 2)
    with pytest.raises(ModelError, match=r"roles system: System role not supported$"):
        strict_codec(build).open([{"role": "system", "content": "Hi"}])
    twice = [{"role": "system", "content": "Be brief."}, *[{"role": "user", "content": "Hi"}] * 2]
    with pytest.raises(ModelError, match=r"system, user, user: System role not supported$"):
        strict_codec(build).open(twice)


def test_a_template_with_a_bug_is_an_error_of_the_model(build):
    broken = build(["<eos>"], [], "{{ messages[0].nothing.there }}", eos="<eos>")
    with pytest.raises(ModelError, match=r"refuses a conversation with the roles user.*nothing"):
        ChatCodec(broken)


def test_the_room_loads_neither_torch_nor_transformers():
    check = "import sys, stateset_agents.chat; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_texts_beyond_the_context_are_measured_and_transformers_does_not_warn_of_them(capfd):
    from stateset_agents.models import load_tokenizer

    tokenizer = load_tokenizer("tiny")
    tokenizer.model_max_length = 20
    codec = ChatCodec(tokenizer)
    asked = [{"role": "user", "content": "What does it cost? " * 20}]
    assert len(codec.open(asked)) > 20
    assert len(codec.encode_reply("It costs $49. " * 20)) > 20
    assert capfd.readouterr().err == ""
