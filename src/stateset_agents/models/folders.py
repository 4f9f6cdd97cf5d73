"""What a model folder must be, checked before anything in it is read.

Invariant: a folder that passes has config.json and safetensors weights; pickled weights are never an answer, and a
config that names code to download is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import ModelError
from .facts import ModelFacts, facts_of_folder
from .names import ALLOWED

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_JSON_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class ModelSource:
    """A model that was found, and perhaps not fetched yet.

    Attributes:
        name: the name as the user wrote it.
        fetch: returns the folder with all files, downloading them if need be.
        sizes: facts known without fetching, or None.
        describe: identity of the fetched folder.
    """

    name: str
    fetch: Callable[[], Path]
    describe: Callable[[Path], dict[str, Any]]
    sizes: ModelFacts | None = None

    @cached_property
    def folder(self) -> Path:
        """The folder with config, weights and tokenizer."""
        return self.fetch()

    @cached_property
    def facts(self) -> ModelFacts:
        """Size of the model, without reading weights."""
        if self.sizes is not None:
            return self.sizes
        try:
            return facts_of_folder(self.folder, read_config(self.folder))
        except ValueError as error:
            raise ModelError(str(error)) from error

    def identity(self) -> dict[str, Any]:
        """Name and revision or hashes, JSON-able."""
        return self.describe(self.folder)


def check_folder(folder: Path) -> None:
    """Check that a folder holds a model that may be loaded.

    Raises:
        ModelError: it does not exist, or lacks a config or safetensors weights.
    """
    if not folder.exists():
        raise ModelError(f"there is no model folder {folder}; {ALLOWED}")
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; a model is a folder with config.json, model.safetensors and a tokenizer")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"{folder} holds a LoRA adapter without its base model; save it merged, and load that")
        inner = next((one for one in ("final_model", "model") if (folder / one / "config.json").is_file()), None)
        hint = f"; did you mean {folder / inner}?" if inner else ""
        raise ModelError(f"{folder} has no config.json, so it is no model folder{hint}")
    read_config(folder)
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        if pickled:
            raise ModelError(refuse_pickled(str(folder), pickled))
        raise ModelError(f"{folder} has no weights: no *.safetensors file beside its config.json")


def refuse_pickled(where: str, files: list[str]) -> str:
    """The message for a model whose weights are pickles."""
    return (
        f"{where} has its weights as pickles only ({', '.join(files[:3])}), which can run code when read and are "
        "refused. Convert them on a machine that you trust: load with transformers, then save_pretrained()."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder.

    Raises:
        ModelError: it is not a JSON object, or it names code to fetch from the hub.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise ModelError(f"{path} is larger than {_JSON_LIMIT // 1024**2} MiB, which no config is")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, not an object")
    _refuse_hub_kernels(path, config)
    return config


def _refuse_hub_kernels(path: Path, config: dict[str, Any]) -> None:
    """A config may name an attention implementation `owner/repo`, which transformers would download and run."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in part.items():
            if "_implementation" in key and "/" in str(value):
                raise ModelError(f'{path}: {key} is "{value}": code to be fetched from the hub, which is refused')


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each safetensors file of a folder, by file name."""
    hashes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
