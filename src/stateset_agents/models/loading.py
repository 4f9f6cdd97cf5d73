"""A name to weights and tokenizer.

Invariant: a model comes back whole or not at all. transformers fills weights that a file lacks with random numbers
and only warns; here that is an error, as is a tokenizer without a chat template.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError, is_out_of_memory
from .devices import choose_device
from .facts import KNOWN
from .folders import read_config
from .loaded import LoadedModel
from .names import TINY, is_stub
from .preflight import choose_dtype, preflight
from .quiet import quiet_transformers
from .sources import find_source
from .tiny import load_tiny, tiny_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_warned: set[Path] = set()


def load_model(
    name: str, *, dtype: str = "auto", device: str | None = None, trust_remote_code: bool = False
) -> LoadedModel:
    """Load weights and tokenizer.

    Args:
        name: `tiny`, `smollm2-135m-instruct`, a model folder, or a name on the hub.
        dtype: "float32", "bfloat16", "float16", or "auto": float32 for small models on a CPU, where they are trained
            from float32 masters anyway, otherwise the dtype in which the weights are stored.
        device: "cpu", "cuda", "cuda:1", ...; None means the first CUDA GPU if there is one.
        trust_remote_code: whether to run code that comes with the model. Only ever from the operator's own config.

    Raises:
        ModelError: no such model, no weights (`stub://`), does not fit into memory, no chat template, incomplete,
            or stored in a form that is refused.
    """
    import torch

    if is_stub(name):
        raise ModelError(f"{name} has no weights: it replies from a script, and nothing can be trained or loaded")
    device = choose_device(device)
    preflight(name, training=False, dtype=dtype, device=device, context_tokens=0, trust_remote_code=trust_remote_code)
    on_gpu = not device.startswith("cpu")
    if name == TINY:
        return load_tiny(_torch_dtype(choose_dtype(dtype, KNOWN[TINY], on_gpu=on_gpu)), torch.device(device))
    source = find_source(name, trust_remote_code=trust_remote_code)
    wanted = _torch_dtype(choose_dtype(dtype, source.facts, on_gpu=on_gpu))
    if trust_remote_code:
        _warn_of_code(name, source.folder)
    tokenizer = _read_tokenizer(name, source.folder, trust_remote_code)
    model = _read_weights(name, source.folder, wanted, device, trust_remote_code)
    return LoadedModel.of(name, model, tokenizer, source.identity())


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with chat template and padding token; that of `tiny` for `stub://...`.

    Raises:
        ModelError: no such model, or no chat template.
    """
    if is_stub(name) or name == TINY:
        return tiny_tokenizer()
    return _read_tokenizer(name, find_source(name, trust_remote_code=trust_remote_code).folder, trust_remote_code)


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _read_tokenizer(name: str, folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, use_safetensors=True, local_files_only=True
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ModelError(_cannot_load(name, "tokenizer", folder, error)) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so messages cannot be turned into its tokens: it is a base model, or its "
            f"chat_template.jinja is missing. Take its instruct variant, or put a template into {folder}."
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no end-of-sequence token, so no reply could ever end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read_weights(name: str, folder: Path, dtype: torch.dtype, device: str, trust_remote_code: bool) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            loaded: tuple[PreTrainedModel, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                device_map=None if device == "cpu" else {"": device},
            )  # type: ignore[assignment]
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
    ) as error:  # fmt: skip
        if is_out_of_memory(error):
            raise
        raise ModelError(_cannot_load(name, "weights", folder, error)) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} is incomplete: {len(missing)} weights of {type(model).__name__} are in none of its files, "
            f"{', '.join(missing[:3])} among them"
        )
    return model


def _warn_of_code(name: str, folder: Path) -> None:
    if "auto_map" in read_config(folder) and folder not in _warned:
        _warned.add(folder)
        log.warning(
            "TRUST_REMOTE_CODE IS ON: Python files that came with %s (%s) are run with all your rights", name, folder
        )


def _cannot_load(name: str, what: str, folder: Path, error: Exception) -> str:
    config: dict[str, Any] = read_config(folder)
    if "auto_map" in config and "trust_remote_code" in str(error):
        return (
            f"{name} brings its own Python code (auto_map in {folder / 'config.json'}), which is not run. If you have "
            "read and trust it, set agent.trust_remote_code: true in your config."
        )
    return f"the {what} of {name} cannot be loaded from {folder}: {type(error).__name__}: {error}"
