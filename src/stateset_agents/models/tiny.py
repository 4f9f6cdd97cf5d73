"""`tiny`: a random Llama and a byte-level tokenizer, made on the spot.

Invariant: the same weights and the same vocabulary in every process, and the global random state is left as it was.

The weights are drawn with a wide deviation, so that next-token distributions are far from uniform and a log-prob that
is off by one position shows. The tokenizer merges some common words, so that one text has several token sequences and
re-tokenising a sampled reply shows too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .loaded import LoadedModel
from .names import TINY

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

SEED = 20240131
INIT_STD = 0.2
VOCABULARY = 512
MAX_CONTEXT = 4096
START, END = "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# The merges are those that build these words from left to right; a leading space belongs to the word.
_WORDS = (
    " the| and| you| your| that| this| with| have| for| are| not| can| will| our| from| please| thanks| order| refund"
    "| account| price| month| help| return| shipping| days| would| like| what| when| where| how| there| about| which"
    "| their| question| answer| customer| support| policy| plan| product| number| free| yes| sorry| Hello| Hi| I| It"
    "| You| We| The| of| to| in| is| on| at| be| as| by| or| if| do| my| me| so| up| we| he| she| was| were| any| all"
    "| one| two| out| see| need| item| pay| time| but| than|assistant|system|user|ing|ion|er"
)


def tiny_config() -> LlamaConfig:
    """Architecture of the tiny model: 2 layers, hidden 64, 4 heads over 2 key-value heads, tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=INIT_STD,
    )


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with 512 entries, ChatML template, and padding = end of turn = `<|im_end|>` as in SmolLM2."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {START: 0, END: 1}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in _WORDS.split("|"):
        letters = word.replace(" ", "Ġ")
        for cut in range(1, len(letters)):
            merged = letters[: cut + 1]
            if merged not in vocabulary and len(vocabulary) < VOCABULARY:
                vocabulary[merged] = len(vocabulary)
                merges.append((letters[:cut], letters[cut]))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_weights() -> PreTrainedModel:
    """The tiny model on the CPU in float32, equal to the bit on every call."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(tiny_config())
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, INIT_STD, generator=generator)
    return model


def load_tiny(dtype: torch.dtype, device: torch.device) -> LoadedModel:
    """The tiny model and its tokenizer."""
    import torch

    model = tiny_weights()
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().numpy().tobytes())
    identity = {"name": TINY, "sha256": {"model": digest.hexdigest()}}
    torch.nn.Module.to(model, device=device)
    for parameter in model.parameters():  # and no buffers: rotation frequencies are float32 in a model that is read
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return LoadedModel.of(TINY, model, tiny_tokenizer(), identity)
