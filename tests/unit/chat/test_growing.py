"""The text of a reply that grows is that of the whole reply, at every token."""

import random

import pytest

from stateset_agents.chat import ChatCodec, GrowingText

TEXT = "Ça va? 日本語 👨‍👩‍👧‍👦 e\u0301 <think>\n  x\t\ufffd </think> <|im_end|> $49, or so.  \n" * 6


def same_at_every_token(codec, ids):
    growing = GrowingText(codec)
    for end in range(len(ids) + 1):
        assert growing.of(ids[:end]) == codec.parse(ids[:end]), end


@pytest.mark.parametrize("name", ["smollm2", "chatml", "llama3", "gptoss"])
def test_it_is_what_parse_says(tokenizers, name):
    codec = ChatCodec(tokenizers(name))
    same_at_every_token(codec, codec.encode_reply(TEXT))


@pytest.mark.parametrize("name", ["smollm2", "chatml"])
def test_tokens_without_sense_are_read_alike(tokenizers, name):
    tokenizer, dice = tokenizers(name), random.Random(0)
    same_at_every_token(ChatCodec(tokenizer), [dice.randrange(len(tokenizer)) for _ in range(400)])


def test_a_decoder_that_drops_the_first_space_drops_it_once():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        piece: number
        for number, piece in enumerate(["<unk>", "</s>", "▁", "▁a", "b", "▁▁", "<0xE2>", "<0x82>", "<0xAC>"])
    }
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    codec, dice = ChatCodec(tokenizer), random.Random(1)
    for _ in range(20):
        same_at_every_token(codec, [dice.choice([2, 3, 4, 5]) for _ in range(150)])
    same_at_every_token(codec, [6, 7, 8, 3] * 40)


def test_a_header_that_comes_again_begins_the_text_again(tokenizers):
    codec = ChatCodec(tokenizers("gptoss"))
    for length in (120, 130, 140, 150):
        said = [*codec.reply_header, *codec.encode_reply("a" * length)]
        same_at_every_token(codec, said * 2)


def test_a_token_that_would_end_a_reply_is_text_before_the_end(tokenizers):
    tokenizer = tokenizers("chatml")
    codec = ChatCodec(tokenizer, model_stop_ids=tokenizer.encode("</tool_call>"))
    same_at_every_token(codec, codec.encode_reply("a</tool_call>" * 60))


def test_calls_may_be_left_out(tokenizers):
    codec = ChatCodec(tokenizers("chatml"))
    ids, growing, dice = codec.encode_reply(TEXT), GrowingText(codec), random.Random(2)
    for end in sorted(dice.sample(range(len(ids)), 40)):
        assert growing.of(ids[:end]) == codec.parse(ids[:end])


def test_a_token_of_a_long_reply_takes_no_longer_than_one_of_a_short_one(tokenizers, monkeypatch):
    codec = ChatCodec(tokenizers("chatml"))
    parse, read = codec.parse, []
    monkeypatch.setattr(codec, "parse", lambda ids: read.append(len(ids)) or parse(ids))
    ids, growing = codec.encode_reply("Hello 日本語. " * 300), GrowingText(codec)
    for end in range(len(ids) + 1):
        growing.of(ids[:end])
    assert max(read) <= 80
