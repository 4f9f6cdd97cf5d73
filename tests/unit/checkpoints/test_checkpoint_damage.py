"""Whatever happened to a checkpoint on the disk is found before it is used, and named."""

import contextlib
import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.checkpoints import latest_checkpoint, read_checkpoint, write_checkpoint
from stateset_agents.checkpoints.manifest import seal
from stateset_agents.checkpoints.paths import checked_name
from stateset_agents.core.errors import CheckpointError

FILES = ["manifest.json", "model/config.json", "optimizer.safetensors", "policy.safetensors", "trainer.json"]


def write_step(folder: Path, step: int) -> Path:
    def model(place: Path) -> None:
        (place / "config.json").write_text(json.dumps({"step": step}))

    return write_checkpoint(
        folder / f"step-{step}",
        tensors={"policy": {"w": torch.full((4, 4), float(step))}, "optimizer": {"m": torch.zeros(9)}},
        records={"trainer": {"step": step}},
        parts={"model": model},
    )


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    for step in (5, 10):
        write_step(tmp_path, step)
    return tmp_path


def edit_manifest(folder: Path, **changes: object) -> None:
    """Change a manifest the way someone would who means harm: with a seal that fits."""
    data = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(data | {"seal": seal(data)}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        flip,
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes() + b" x"),
    ],
    ids=["cut", "emptied", "bit flipped", "deleted", "appended"],
)
def test_damage_to_any_file_is_found_named_and_walked_back_from(steps, name, damage):
    damage(steps / "step-10" / name)
    found, skipped = latest_checkpoint(steps)
    assert found == steps / "step-5"
    assert len(skipped) == 1
    assert "step-10" in skipped[0]
    assert name in skipped[0]


def test_a_flipped_bit_in_the_manifest_never_gives_other_contents(steps):
    path = steps / "step-10" / "manifest.json"
    whole = path.read_bytes()
    rng = random.Random(0)
    intact = read_checkpoint(steps / "step-10").manifest
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        # A blank that turned into another blank says the same.
        with contextlib.suppress(CheckpointError):
            assert read_checkpoint(steps / "step-10").manifest == intact


def test_without_verifying_only_sizes_are_compared(steps):
    flip(steps / "step-10" / "policy.safetensors")
    read_checkpoint(steps / "step-10", verify=False)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors is not what was written"):
        read_checkpoint(steps / "step-10")


class _WritesCanary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "state.pkl", "model/x.pth", "model/a.npy"])
def test_a_pickle_slipped_into_a_checkpoint_is_refused_and_not_run(steps, tmp_path, name):
    canary = tmp_path / "canary"
    (steps / "step-10" / name).write_bytes(pickle.dumps(_WritesCanary(canary)))
    with pytest.raises(CheckpointError, match="not part of this checkpoint"):
        read_checkpoint(steps / "step-10")
    assert not canary.exists()


def test_a_pickle_that_the_manifest_lists_is_refused_and_not_run(steps, tmp_path):
    canary = tmp_path / "canary"
    path = steps / "step-10"
    (path / "state.pkl").write_bytes(pickle.dumps(_WritesCanary(canary)))
    edit_manifest(path, files={"state.pkl": {"size": (path / "state.pkl").stat().st_size, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="pickled files can run code"):
        read_checkpoint(path)
    assert not canary.exists()


def test_a_pickle_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match="Pickles are not read"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["extra.safetensors", "modeling.py", "chat_template.jinja"])
def test_a_file_that_a_loader_would_pick_up_must_be_listed(steps, name):
    (steps / "step-10" / name).write_text("x")
    with pytest.raises(CheckpointError, match=f"{name} is not part of this checkpoint"):
        read_checkpoint(steps / "step-10")


def test_notes_and_results_may_lie_in_a_checkpoint(steps):
    for name in ("README.md", "results.json", ".DS_Store"):
        (steps / "step-10" / name).write_text("x")
    assert read_checkpoint(steps / "step-10").record("trainer") == {"step": 10}


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused_even_to_equal_bytes(steps, tmp_path, name):
    path = steps / "step-10" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        read_checkpoint(steps / "step-10")


def test_a_linked_folder_inside_is_refused(steps, tmp_path):
    (steps / "step-10" / "model").rename(tmp_path / "elsewhere")
    (steps / "step-10" / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        read_checkpoint(steps / "step-10")


@pytest.mark.parametrize(
    "name", ["../step-5/trainer.json", "/etc/hostname", "model/../../x", "a\\b", ".", "a//b", "%2e%2e/x\n"]
)
def test_a_manifest_cannot_name_files_elsewhere(steps, name):
    edit_manifest(steps / "step-10", files={name: {"size": 1, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="is refused as a name"):
        read_checkpoint(steps / "step-10")


@pytest.mark.parametrize(
    "change",
    [
        {"parts": [".."]},
        {"parts": ["/etc"]},
        {"files": None},
        {"files": {"a.json": {"size": "many"}}},
        {"files": []},
        {"tensors": 3},
        {"versions": None},
    ],
)
def test_a_manifest_that_makes_no_sense_is_an_error(steps, change):
    edit_manifest(steps / "step-10", **change)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_checkpoint(steps / "step-10")


def test_stems_of_a_manifest_are_read_only_if_their_file_is_listed(steps):
    edit_manifest(steps / "step-10", records=["../step-5/trainer"])
    with pytest.raises(CheckpointError, match="has no"):
        read_checkpoint(steps / "step-10").record("../step-5/trainer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list"),
        ("{" * 100_000, "cannot be read"),
        ('{"format": "other"}', "not of this package"),
        ('{"format": "stateset-agents-checkpoint", "version": 99}', "install a later release"),
        ('{"format": "stateset-agents-checkpoint", "version": NaN}', "cannot be read"),
    ],
)
def test_a_manifest_of_another_kind_says_which(steps, text, message):
    (steps / "step-10" / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(steps / "step-10")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_an_accepted_name_stays_inside_its_folder(name):
    root = Path("/checkpoint")
    try:
        checked_name(name, "test")
    except CheckpointError:
        return
    assert (root / name).resolve().is_relative_to(root)
    assert ".." not in Path(name).parts
