"""A folder loads whole, or ends in one ModelError that says what is wrong."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig

from stateset_agents.agents import AgentConfig, load_runtime
from stateset_agents.core.errors import ModelError
from stateset_agents.models import LoadedModel, load_model, load_tokenizer, save_model_folder
from stateset_agents.models.loaded import UNBOUNDED
from stateset_agents.models.names import names_a_folder

CANARY_CODE = "from pathlib import Path\nPath({canary!r}).write_text('ran')\nclass {name}: pass\n"


class _WritesCanary:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (Path(self.path), "ran"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model_folder(load_model("tiny"), tmp_path / "model")


def edit_json(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (data | changes).items() if value is not None}))


def test_a_folder_loads_with_the_same_logits_and_records_its_hash(folder):
    loaded, tiny = load_model(str(folder)), load_model("tiny")
    ids = torch.tensor([[5, 60, 300, 9]])
    assert torch.equal(loaded.model(ids).logits, tiny.model(ids).logits)
    assert list(loaded.identity["sha256"]) == ["model.safetensors"]
    assert (loaded.max_context, loaded.stop_ids) == (tiny.max_context, tiny.stop_ids)


def test_importing_the_room_loads_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import sys, stateset_agents.models, stateset_agents.checkpoints; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_auto_dtype_on_a_cpu_is_float32_and_an_explicit_one_is_obeyed(folder):
    edit_json(folder / "config.json", dtype="bfloat16")
    assert load_model(str(folder), device="cpu").dtype == torch.float32
    assert load_model(str(folder), dtype="float16", device="cpu").dtype == torch.float16
    with pytest.raises(ModelError, match='dtype is "fp8"; allowed: auto, float32, bfloat16, float16'):
        load_model(str(folder), dtype="fp8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "there is no model folder nowhere"),
        ("/no/such/folder", "there is no model folder /no/such/folder"),
        ("", "the model name is empty"),
        ("a b", '"a b" is no model name'),
        ("stub://echo", "stub://echo has no weights"),
        ("tniy", 'did you mean "tiny"'),
    ],
)
def test_a_name_that_leads_nowhere_says_what_is_allowed(name, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(name)
    assert "allowed: smollm2-135m-instruct, tiny" in str(caught.value) or name.startswith("stub")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"is a file; a model is a folder with config\.json"):
        load_model(str(tmp_path / "model.gguf"))


def test_a_run_folder_points_to_the_model_inside(folder, tmp_path):
    folder.rename(tmp_path / "final_model")
    with pytest.raises(ModelError, match=r"no config.json.*did you mean .*final_model\?"):
        load_model(str(tmp_path))


def test_a_lone_adapter_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter without its base model"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "{" * 100_000])
def test_a_damaged_config_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(str(folder))


def test_pickled_weights_are_refused_and_never_read(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_WritesCanary(str(canary))))
    with pytest.raises(ModelError, match=r"weights as pickles only \(pytorch_model.bin\)"):
        load_model(str(folder))
    assert not canary.exists()


def test_pickled_weights_beside_safetensors_are_not_read(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_WritesCanary(str(canary))))
    load_model(str(folder))
    assert not canary.exists()


def test_no_weights_at_all_is_said(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(str(folder))


@pytest.mark.parametrize("cut", [4, 200, -100])
def test_weights_that_are_cut_short_are_an_error(folder, cut):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_a_missing_weight_is_an_error_and_not_a_random_number(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: 1 weights .* model.layers.1.mlp.up_proj.weight"):
        load_model(str(folder))


def test_a_weight_of_another_shape_is_an_error(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(65)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights of .* cannot be loaded"):
        load_model(str(folder))


def test_a_model_without_chat_template_is_refused_before_its_weights_are_read(folder):
    (folder / "chat_template.jinja").unlink()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(ModelError, match="has no chat template"):
        load_model(str(folder))
    with pytest.raises(ModelError, match="has no chat template"):
        load_tokenizer(str(folder))


def test_a_tokenizer_without_end_of_sequence_is_refused(folder):
    edit_json(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_tokenizer(str(folder))


def test_a_tokenizer_without_padding_pads_with_its_end_of_sequence(folder):
    edit_json(folder / "tokenizer_config.json", pad_token=None)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_code_that_comes_with_a_known_architecture_is_not_run(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(CANARY_CODE.format(canary=str(canary), name="Evil"))
    edit_json(folder / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    assert type(load_model(str(folder)).model).__name__ == "LlamaForCausalLM"
    assert not canary.exists()


def test_code_that_comes_with_an_unknown_architecture_ends_in_an_error(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(CANARY_CODE.format(canary=str(canary), name="Evil"))
    edit_json(
        folder / "config.json",
        model_type="evil",
        trust_remote_code=True,
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    )
    with pytest.raises(ModelError, match="brings its own Python code"):
        load_model(str(folder))
    assert not canary.exists()


def test_code_that_the_operator_trusts_is_announced_once(folder, caplog):
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n\n\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    edit_json(
        folder / "config.json",
        model_type="own",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    config = AgentConfig(str(folder), device="cpu")
    with pytest.raises(ModelError, match=r"set agent.trust_remote_code: true in your config"):
        load_runtime(config)
    trusted = replace(config, trust_remote_code=True)
    models = [load_runtime(trusted).model for _ in range(2)]
    assert [type(loaded.model).__name__ for loaded in models] == ["OwnModel", "OwnModel"]
    assert caplog.text.count("TRUST_REMOTE_CODE IS ON") == 1


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_config_that_names_code_on_the_hub_is_refused(folder, key):
    edit_json(folder / "config.json", **{key: "someone/attention"})
    with pytest.raises(ModelError, match="code to be fetched from the hub"):
        load_model(str(folder))


def test_loading_prints_nothing(folder, capfd):
    load_model(str(folder))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["{", "{}", "\x00\x01"])
def test_a_damaged_tokenizer_is_named(folder, text):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be loaded"):
        load_model(str(folder))


def test_every_end_of_sequence_id_stops_a_reply(folder):
    edit_json(folder / "generation_config.json", eos_token_id=[7, 1, 9])
    assert load_model(str(folder)).stop_ids == (1, 7, 9)


def test_a_model_without_a_stated_length_has_that_of_its_tokenizer():
    loaded = load_model("tiny")
    loaded.model.config = BloomConfig()
    assert LoadedModel.of("x", loaded.model, loaded.tokenizer, {}).max_context == loaded.tokenizer.model_max_length
    loaded.tokenizer.model_max_length = 10**30
    assert LoadedModel.of("x", loaded.model, loaded.tokenizer, {}).max_context == UNBOUNDED


@pytest.mark.parametrize(
    ("name", "folder"),
    [("gpt2", False), ("owner/model", False), ("./model", True), ("~/model", True), ("/m", True), ("a/b/c", True)],
)
def test_what_can_only_be_a_path_is_never_asked_of_the_hub(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names_a_folder(name) is folder
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert names_a_folder("owner/model")
