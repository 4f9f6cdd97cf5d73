"""A model name to weights and tokenizer, and back to a folder.

Invariant: importing this room loads neither torch nor transformers; each function does so when it is called.
"""

from __future__ import annotations

from .loaded import LoadedModel
from .loading import load_model, load_tokenizer
from .lora import attach_lora, base_policy, detach_lora, fresh_lora, has_lora, trainable_parameters
from .names import EMBEDDED, TINY, is_stub
from .preflight import MemoryEstimate, StepMemory, cache_budget, preflight
from .saving import merged_state_dict, save_model_folder, weight_bytes

__all__ = [
    "EMBEDDED",
    "TINY",
    "LoadedModel",
    "MemoryEstimate",
    "StepMemory",
    "attach_lora",
    "base_policy",
    "cache_budget",
    "detach_lora",
    "fresh_lora",
    "has_lora",
    "is_stub",
    "load_model",
    "load_tokenizer",
    "merged_state_dict",
    "preflight",
    "save_model_folder",
    "trainable_parameters",
    "weight_bytes",
]
