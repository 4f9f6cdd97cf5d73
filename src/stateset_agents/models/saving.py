"""A model folder that anything can load.

Invariant: `AutoModelForCausalLM.from_pretrained(folder)` and `AutoTokenizer.from_pretrained(folder)` need no further
step: adapters are merged, on a copy, into plain weights under their plain names. The live model is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ModelError
from .loaded import LoadedModel
from .lora import ADAPTER, lora_layers
from .quiet import quiet_transformers
from .tensors import first_non_finite

if TYPE_CHECKING:
    from torch import Tensor


def save_model_folder(
    loaded: LoadedModel, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None
) -> Path:
    """Write config, generation config, weights (safetensors) and tokenizer.

    Args:
        loaded: the model. Its adapters, if any, are merged into what is written.
        folder: created if missing. Not atomic: write it as a part of a checkpoint.
        state_dict: weights to write instead of the model's own, such as float32 masters: plain names, no adapters.

    Returns:
        The folder.

    Raises:
        ModelError: a weight is NaN or infinite; nothing is written then.
    """
    folder = Path(folder)
    weights = dict(state_dict) if state_dict is not None else merged_state_dict(loaded)
    broken = first_non_finite(weights)
    if broken is not None:
        raise ModelError(f"the weights of {loaded.name} are not saved to {folder}: {broken}")
    folder.mkdir(parents=True, exist_ok=True)
    config = loaded.model.config
    remembered = config.dtype
    written = next(iter(weights.values())).dtype
    try:
        with quiet_transformers():
            loaded.model.save_pretrained(str(folder), state_dict=weights, save_peft_format=False)
            loaded.tokenizer.save_pretrained(str(folder))
            # save_pretrained records the live model's dtype, which need not be that of the weights it was given.
            config.dtype = written
            config.save_pretrained(str(folder))
    finally:
        config.dtype = remembered
    return folder


def weight_bytes(loaded: LoadedModel, state_dict: Mapping[str, Tensor] | None = None) -> int:
    """Bytes of the weights that `save_model_folder` writes; tied ones count once, as they are written once."""
    if state_dict is None:
        state_dict = {name: one for name, one in loaded.model.named_parameters() if "lora_" not in name}
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in state_dict.values()}.values())


def merged_state_dict(loaded: LoadedModel, *, adapter: str = ADAPTER) -> dict[str, Tensor]:
    """The weights with adapters merged, on the CPU, under the names that the model has without adapters.

    Args:
        loaded: the model.
        adapter: name of its adapters, for those that another library attached.
    """
    layers = dict(lora_layers(loaded))
    merged: dict[str, Tensor] = {}
    for name, tensor in loaded.model.state_dict().items():
        if f".{adapter}." in name:
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        if layer is not None:
            # Added in float32 and rounded once, so that merging costs a bf16 model no more than it must.
            delta = layer.get_delta_weight(adapter).float()
            tensor = (tensor.float() + delta.to(tensor.device)).to(tensor.dtype)
        merged[name.replace(".base_layer.", ".")] = tensor.detach().cpu()
    return merged
