"""The tiny model is the same everywhere, and shaped so that bugs show."""

import hashlib
import random
import subprocess
import sys

import numpy
import pytest
import torch

from stateset_agents.models import load_model, load_tokenizer
from stateset_agents.models.tiny import VOCABULARY, tiny_tokenizer, tiny_weights

IN_ANOTHER_PROCESS = """
import torch
torch.manual_seed(7)
from stateset_agents.models import load_model
loaded = load_model("tiny")
ids = loaded.tokenizer("Hello there, what is it?")["input_ids"]
print(loaded.identity["sha256"]["model"], len(loaded.tokenizer), ids)
"""


def test_tiny_has_the_same_weights_and_tokens_in_every_process():
    loaded = load_model("tiny")
    run = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True)
    ids = loaded.tokenizer("Hello there, what is it?")["input_ids"]
    assert run.stdout.strip() == f"{loaded.identity['sha256']['model']} {VOCABULARY} {ids}"


def test_tiny_is_the_model_that_recorded_checkpoints_know():
    digest = hashlib.sha256()
    for name, parameter in sorted(tiny_weights().named_parameters()):
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    assert load_model("tiny").identity["sha256"]["model"] == digest.hexdigest()


def test_making_tiny_leaves_every_global_random_state_alone():
    torch.manual_seed(1)
    before = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist())
    load_model("tiny")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[1:]


def test_next_token_distributions_of_tiny_are_far_from_uniform():
    loaded = load_model("tiny")
    ids = torch.tensor([loaded.tokenizer("Please, where is the order?")["input_ids"]])
    with torch.no_grad():
        logprobs = loaded.model(ids).logits[0].log_softmax(-1)
    uniform = -torch.log(torch.tensor(float(VOCABULARY)))
    assert (logprobs.max(-1).values - uniform).min() > 2
    assert logprobs.std(-1).min() > 1


def test_every_byte_survives_the_tiny_tokenizer():
    tokenizer = tiny_tokenizer()
    text = "Hello, the customer's order №5 — 你好 🙂\n\n\ttab  two spaces"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == VOCABULARY


def test_one_text_has_several_token_sequences_so_that_retokenising_shows():
    tokenizer = tiny_tokenizer()
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "Ġthe"]
    assert tokenizer.decode(letters) == " the"
    assert tokenizer(" the")["input_ids"] != letters


def test_tiny_chats_in_chatml_and_pads_with_its_end_of_turn():
    tokenizer = load_tokenizer("tiny")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_loaded_model_knows_its_stop_ids_context_device_and_dtype():
    loaded = load_model("tiny", dtype="bfloat16", device="cpu")
    assert loaded.stop_ids == (loaded.tokenizer.eos_token_id,)
    assert (loaded.max_context, loaded.device.type, loaded.dtype) == (4096, "cpu", torch.bfloat16)
    assert not loaded.model.training


@pytest.mark.parametrize("name", ["stub://echo", "stub://"])
def test_a_stub_gets_the_tiny_tokenizer(name):
    assert len(load_tokenizer(name)) == VOCABULARY
