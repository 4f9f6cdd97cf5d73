"""What to think about before a run: `TRLGRPOConfig.validate`.

Invariant: advice never stops anything. What cannot work at all is refused when the config is made, or when training
begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.errors import StatesetError
from .machine import Precision, why_not_quantized
from .plan import make_plan

if TYPE_CHECKING:
    from .config import TRLGRPOConfig

RECOMMENDED = {
    "learning_rate": (1e-6, 1e-5),
    "per_device_train_batch_size": (1, 4),
    "gradient_accumulation_steps": (8, 32),
    "num_generations": (2, 8),
    "beta": (0.0, 0.1),
    "lora_r": (8, 64),
    "lora_alpha": (16, 128),
}
"""The training guide's ranges, both ends included."""


def advice(config: TRLGRPOConfig) -> list[str]:
    """See `TRLGRPOConfig.validate`."""
    return [*_unusual(config), *_without_effect(config), *_machine(config), *make_plan(config).notes]


def _unusual(config: TRLGRPOConfig) -> list[str]:
    notes = []
    for name, (low, high) in RECOMMENDED.items():
        value = getattr(config, name)
        if (config.use_lora or not name.startswith("lora_")) and not low <= value <= high:
            notes.append(f"{name} is {value:g}; recommended is {low:g} to {high:g}")
    return notes


def _without_effect(config: TRLGRPOConfig) -> list[str]:
    notes = []
    if config.offload_folder is not None:
        notes.append(
            "offload_folder has no effect: weights that lie on a disk or in another memory are not trained; a smaller "
            "model, adapters (use_lora) and shorter conversations are what saves memory"
        )
    if not config.use_lora:
        adapters = sorted({"lora_r", "lora_alpha", "lora_dropout"} & config.model_fields_set)
        if adapters:
            notes.append(f"{', '.join(adapters)}: no effect, because use_lora is false")
    if config.lora_dropout and config.use_lora:
        notes.append(
            f"lora_dropout is {config.lora_dropout:g}: TRL learns with it and conversations are held without, so the "
            "policy that learns is not quite the one that spoke; 0 keeps them one"
        )
    if config.top_p is not None and config.top_p < 1:
        notes.append(
            f"top_p is {config.top_p:g}: it applies to the trained agent's replies; training samples untruncated, "
            "because the loss is that of the untruncated distribution"
        )
    return notes


def _machine(config: TRLGRPOConfig) -> list[str]:
    try:
        precision = Precision.of(config, None)
        reason = why_not_quantized(config, None)
    except StatesetError as error:
        return [str(error)]
    notes = [*precision.notes]
    if reason is not None:
        notes.append(reason)
    elif config.quantized and precision.use_cpu:
        notes.append(
            f"{config.quantized} on a CPU takes more memory, not less, and more time: the weights of before are kept "
            "beside the rounded ones"
        )
    return notes
