"""What is written comes back to the bit, and what must not be written is refused first."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stateset_agents.checkpoints import read_checkpoint, resolve_checkpoint, write_checkpoint
from stateset_agents.core.errors import CheckpointError, RunFolderError
from stateset_agents.models import load_model, save_model_folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def test_tensors_of_every_dtype_come_back_to_the_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(7, 5, generator=generator)
    tensors = {
        "f32": base,
        "bf16": base.bfloat16(),
        "f16": base.half(),
        "i64": torch.tensor([2**62, -1]),
        "u8": torch.get_rng_state()[:100],
        "bool": base > 0,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "transposed": base.T,
        "slice": base[1:3],
        "needs grad": base.clone().requires_grad_(),
        "denormal": torch.tensor([1e-45, -0.0]),
    }
    write_checkpoint(tmp_path / "step-1", tensors={"state": tensors})
    back = read_checkpoint(tmp_path / "step-1").tensors("state")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype, name
        assert back[name].shape == tensor.shape, name
        assert bits(back[name]) == bits(tensor), name


def test_tied_and_repeated_tensors_are_written_out_each(tmp_path):
    weight = torch.arange(6.0)
    write_checkpoint(tmp_path / "c", tensors={"model": {"embed": weight, "head": weight, "half": weight[:3]}})
    back = read_checkpoint(tmp_path / "c").tensors("model")
    assert torch.equal(back["embed"], weight)
    assert torch.equal(back["head"], weight)
    assert back["half"].tolist() == [0.0, 1.0, 2.0]


def test_records_come_back_equal_and_exact(tmp_path):
    record = {"step": 3, "reward": 0.1 + 0.2, "rng": [2**63 + 1, -5], "text": "ünï\ud800 \u0000 🙂", "none": None}
    write_checkpoint(tmp_path / "c", records={"state": record, "list": [1, [2]]})
    checkpoint = read_checkpoint(tmp_path / "c")
    assert checkpoint.record("state") == record
    assert checkpoint.record("list") == [1, [2]]


def test_a_checkpoint_says_what_it_holds_and_what_it_was_made_with(tmp_path):
    def write_model(folder: Path) -> None:
        (folder / "vocab.txt").write_text("a\nb\n")

    path = write_checkpoint(
        tmp_path / "c", tensors={"optimizer": {"m": torch.ones(2)}}, records={"agent": {}}, parts={"model": write_model}
    )
    manifest = read_checkpoint(path).manifest
    assert (manifest.tensors, manifest.records, manifest.parts) == (("optimizer",), ("agent",), ("model",))
    assert sorted(manifest.files) == ["agent.json", "model/vocab.txt", "optimizer.safetensors"]
    assert manifest.files["model/vocab.txt"].size == 4
    assert manifest.versions["torch"] == torch.__version__.partition("+")[0] or "+" in manifest.versions["torch"]
    assert read_checkpoint(path).part("model") == path / "model"
    for ask in (lambda c: c.tensors("agent"), lambda c: c.record("optimizer"), lambda c: c.part("..")):
        with pytest.raises(CheckpointError, match="it has: "):
            ask(read_checkpoint(path))


def test_a_final_model_is_a_checkpoint_and_a_model_folder_at_once(tmp_path):
    loaded = load_model("tiny")
    path = write_checkpoint(
        tmp_path / "final_model",
        records={"agent": {"system_prompt": "Be brief."}},
        parts={".": lambda folder: save_model_folder(loaded, folder)},
    )
    assert resolve_checkpoint(path) == path
    assert read_checkpoint(path).record("agent") == {"system_prompt": "Be brief."}
    model = AutoModelForCausalLM.from_pretrained(str(path), trust_remote_code=False, use_safetensors=True)
    assert AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, use_safetensors=True).chat_template
    ids = torch.tensor([[4, 5, 6]])
    assert torch.equal(model(ids).logits, loaded.model(ids).logits)
    assert torch.equal(load_model(str(path)).model(ids).logits, loaded.model(ids).logits)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_number_that_is_not_finite_stops_the_save_before_a_byte_is_written(tmp_path, value, dtype):
    tensor = torch.ones(3, 4, dtype=dtype)
    tensor[1, 2] = value
    with pytest.raises(CheckpointError, match=r"optimizer: exp_avg holds (NaN|an infinity)"):
        write_checkpoint(tmp_path / "run" / "step-2", tensors={"optimizer": {"fine": torch.ones(1), "exp_avg": tensor}})
    assert not (tmp_path / "run").exists()


def test_weights_of_a_part_are_checked_as_well(tmp_path):
    from safetensors.torch import save_file

    def broken(folder: Path) -> None:
        save_file({"w": torch.tensor([1.0, float("nan")])}, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"model/model\.safetensors: w holds NaN"):
        write_checkpoint(tmp_path / "c", parts={"model": broken})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_a_record_that_is_not_json_stops_the_save(tmp_path, value):
    with pytest.raises(CheckpointError, match="record 'state' is not JSON"):
        write_checkpoint(tmp_path / "c", records={"state": {"x": value}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../up", "/abs", "a/b", ".hidden", "a\\b", "", "manifest", "nul\x00", "w.pt"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "run" / "c", records={name: 1})
    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "run" / "c", tensors={name: {"x": torch.ones(1)}})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["..", "../up", "/abs", ".git", "a/../b", "x.pkl"])
def test_parts_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="is refused"):
        write_checkpoint(tmp_path / "run" / "c", parts={name: lambda folder: None})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), "pickled files can run code"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "is a link"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "belongs to the checkpoint itself"),
        (lambda folder: (folder / "agent.json").write_text("{}"), r"agent\.json is written twice"),
    ],
)
def test_a_part_that_writes_what_must_not_be_there_stops_the_save(tmp_path, write, message):
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "c", records={"agent": {}}, parts={".": write})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_not_overwritten_unless_told_so(tmp_path):
    write_checkpoint(tmp_path / "c", records={"state": 1})
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(tmp_path / "c", records={"state": 2})
    assert snapshot(tmp_path) == before
    write_checkpoint(tmp_path / "c", records={"state": 2}, replace=True)
    assert read_checkpoint(tmp_path / "c").record("state") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("content", [None, "{}", '{"format": "web app"}'])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, content):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    if content:
        (tmp_path / "mine" / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "mine", records={"state": 1}, replace=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_become_a_checkpoint_but_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    write_checkpoint(tmp_path / "empty", records={"state": 1})
    assert read_checkpoint(tmp_path / "empty").record("state") == 1
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file or a link"):
        write_checkpoint(tmp_path / "file", records={"state": 1}, replace=True)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (28, "the disk is full: free some space"),
        (30, "the file system is read-only"),
        (13, "permission denied"),
        (5, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_disk_that_refuses_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, monkeypatch, code, advice, call):
    write_checkpoint(tmp_path / "step-1", records={"state": 1})

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(RunFolderError, match=advice) as caught:
            write_checkpoint(tmp_path / "step-2", tensors={"w": {"x": torch.ones(3)}}, records={"state": 2})
    assert str(tmp_path / "step-2") in str(caught.value)
    assert "Earlier checkpoints are untouched" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert read_checkpoint(tmp_path / "step-1").record("state") == 1


def test_a_full_disk_inside_a_part_or_in_the_tensor_library_is_explained_too(tmp_path, monkeypatch):
    import safetensors.torch
    from safetensors import SafetensorError

    def full(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, os.strerror(28))

    def library_full(*args: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(RunFolderError, match="the disk is full"):
        write_checkpoint(tmp_path / "c", parts={"model": full})
    monkeypatch.setattr(safetensors.torch, "save_file", library_full)
    with pytest.raises(RunFolderError, match="the disk is full"):
        write_checkpoint(tmp_path / "c", tensors={"w": {"x": torch.ones(3)}})
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_found_before_writing(tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(RunFolderError, match="disk is full") as caught:
        write_checkpoint(tmp_path / "c", tensors={"w": {"x": torch.ones(1024)}}, part_bytes=6 * 1024**2 - 4096)
    assert "keep fewer checkpoints (training.keep_checkpoints, or a larger save_steps under TRL)" in str(caught.value)
    assert "(6 MiB needed, 1.0 KiB free)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_gives_the_old_one_its_name_back(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "c", records={"state": 1})
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-"):
            raise OSError(5, os.strerror(5))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(RunFolderError, match="Input/output error"):
        write_checkpoint(tmp_path / "c", records={"state": 2}, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert read_checkpoint(tmp_path / "c").record("state") == 1


def test_an_interrupt_in_the_middle_leaves_nothing_behind(tmp_path):
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "c", parts={"model": interrupted})
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_plain_json_that_a_person_can_read(tmp_path):
    write_checkpoint(tmp_path / "c", records={"state": 1})
    data = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert (data["format"], data["version"]) == ("stateset-agents-checkpoint", 1)
    assert data["files"]["state.json"]["size"] == 1
