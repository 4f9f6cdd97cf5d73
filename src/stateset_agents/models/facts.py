"""What can be known of a model without loading its weights.

Invariant: reads config.json and the headers of safetensors files, never a tensor. Parameters are counted exactly
where the headers are at hand.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .names import EMBEDDED, TINY

_DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
"""Where configs say how long a sequence may be."""
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Size of a model.

    Attributes:
        parameters: number of parameters.
        dtype: dtype in which most of the weights are stored, or "" if it is none that weights are computed in.
        hidden: width of the residual stream.
        layers: number of transformer layers.
        kv_elements_per_token: numbers that the key-value cache keeps for one token, over all layers.
        model_type: transformers' name of the architecture.
        vocabulary: number of logits; 0 if the config does not say.
        context: longest sequence that the config names, in tokens; 0 if it names none.
        inner: width of what one token is given between the matrices of a layer's MLP, all its experts together.
        queries: width of all query heads of a layer.
    """

    parameters: int
    dtype: str = "float32"
    hidden: int = 0
    layers: int = 0
    kv_elements_per_token: int = 0
    model_type: str = ""
    vocabulary: int = 0
    context: int = 0
    inner: int = 0
    queries: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int, dtype: str) -> ModelFacts:
        """Facts from a parsed config.json (a multi-modal one keeps its text model in `text_config`)."""
        text = config.get("text_config") or config
        hidden = _number(text, "hidden_size", "n_embd", "d_model")
        layers = _number(text, "num_hidden_layers", "n_layer", "num_layers")
        heads = _number(text, "num_attention_heads", "n_head") or 1
        kv_heads = _number(text, "num_key_value_heads") or heads
        head_dim = _number(text, "head_dim") or hidden // heads
        model_type = str(config.get("model_type") or "")
        kv_elements = 2 * layers * kv_heads * head_dim
        vocabulary, context = _number(text, "vocab_size"), _number(text, *LENGTH_KEYS)
        inner = _number(text, "moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
        inner *= _number(text, "num_experts_per_tok") or 1
        return cls(
            parameters, dtype, hidden, layers, kv_elements, model_type, vocabulary, context, inner, heads * head_dim
        )


KNOWN: Mapping[str, ModelFacts] = {
    TINY: ModelFacts(106_816, "float32", 64, 2, 2 * 2 * 2 * 16, "llama", 512, 4096, 128, 64),
    EMBEDDED: ModelFacts(134_515_008, "float32", 576, 30, 2 * 30 * 3 * 64, "llama", 49_152, 8192, 1536, 576),
    # Published sizes of models that the documents name, so that the check needs no network.
    "openai/gpt-oss-120b": ModelFacts(116_829_156_672, "bfloat16", 2880, 36, 2 * 36 * 8 * 64, "gpt_oss"),
    "openai/gpt-oss-20b": ModelFacts(20_914_757_184, "bfloat16", 2880, 24, 2 * 24 * 8 * 64, "gpt_oss"),
}

NOT_DRIVEN: Mapping[str, str] = {
    "gpt_oss": "attention sinks",
    "gemma2": "capped attention scores",
    "mamba": "a state in place of attention",
    "mamba2": "a state in place of attention",
    "falcon_mamba": "a state in place of attention",
    "jamba": "layers with a state",
    "qwen3_next": "layers with a state",
}
"""Architectures that the local engine cannot drive, and what they have that it lacks. Others are found out by its check
of the loaded weights; these are refused before anything is downloaded."""


def facts_of_folder(folder: Path, config: Mapping[str, Any]) -> ModelFacts:
    """Facts of a model folder.

    Args:
        folder: holds at least one safetensors file.
        config: its parsed config.json.

    Raises:
        ValueError: a file is not safetensors; the message names it.
    """
    stored: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for entry in _header(path).values():
            count = 1
            for size in entry["shape"]:
                count *= size
            stored[entry["dtype"]] = stored.get(entry["dtype"], 0) + count
    return ModelFacts.of(config, sum(stored.values()), common_dtype(stored))


def common_dtype(stored: Mapping[str, int]) -> str:
    """Name in torch of the dtype that most elements have, from counts by safetensors dtype."""
    return _DTYPE_NAMES.get(max(stored, key=lambda name: stored[name]), "") if stored else ""


def _header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file: name to dtype, shape and offsets."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
        if length > _HEADER_LIMIT:
            raise ValueError(f"{path} is not a safetensors file, or is cut short")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} is not a safetensors file, or is cut short") from error
    header.pop("__metadata__", None)
    return header


def _number(config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int):
            return value
    return 0
