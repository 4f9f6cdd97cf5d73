"""LoRA adapters inside a loaded model.

Invariant: the base weights never change; policy minus adapters is the reference. Adapters are float32 whatever the
base is, because a bf16 adapter does not move under a small step. The model keeps its own class and module names:
linear layers are replaced in place, nothing is wrapped around the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from .loaded import LoadedModel

if TYPE_CHECKING:
    from torch.nn import Parameter

ADAPTER = "policy"


def attach_lora(
    loaded: LoadedModel,
    *,
    r: int = 16,
    alpha: int = 32,
    dropout: float = 0.0,
    target_modules: str | list[str] = "all-linear",
    seed: int = 0,
) -> LoadedModel:
    """Put fresh adapters into `loaded.model`; only they are trainable afterwards.

    Args:
        loaded: changed in place.
        r: rank, at least 1.
        alpha: the adapter's output is scaled by `alpha / r`.
        dropout: on the adapter's input while the model is in train mode.
        target_modules: names of linear layers, or "all-linear" (all but the output head).
        seed: of the adapters' initial values; the global random state stays as it was.

    Returns:
        `loaded`. At first it computes exactly what it computed before: the second matrix of each adapter is zero.

    Raises:
        ModelError: there are adapters already, no layer has one of the names, or one of them is the output head.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    if has_lora(loaded):
        raise ModelError(f"{loaded.name} already has LoRA adapters; load it again for other ones")
    head = _head_name(loaded)
    if not isinstance(target_modules, str) and any(f".{head}".endswith(f".{name}") for name in target_modules):
        # The sampler and the learner apply the head's own matrix, a few rows at a time.
        raise ModelError(f"LoRA cannot be put on {head}, the output head of {loaded.name}; leave it out")
    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_modules, task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng(devices=_gpus(loaded)):
            inject_adapter_in_model(config, loaded.model, adapter_name=ADAPTER)
    except ValueError as error:
        linear = {
            name.rpartition(".")[2]
            for name, module in loaded.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        raise ModelError(
            f"LoRA cannot be put into {loaded.name}: {error} Its linear layers: {', '.join(sorted(linear))}."
        ) from error
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(loaded.model.named_parameters()):
        parameter.requires_grad_(f".{ADAPTER}." in name)
        if parameter.requires_grad:
            fresh = torch.zeros(parameter.shape)
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            parameter.data = fresh.to(parameter.device)
    return loaded


def has_lora(loaded: LoadedModel) -> bool:
    """Whether adapters were attached."""
    return any(True for _ in lora_layers(loaded))


def lora_layers(loaded: LoadedModel) -> Iterator[tuple[str, Any]]:
    """(module name, LoRA layer) of each adapted linear layer."""
    from peft.tuners.lora import LoraLayer

    for name, module in loaded.model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def fresh_lora(loaded: LoadedModel) -> bool:
    """Whether the adapters change nothing yet: the second matrix of each is zero."""
    return not any(bool(p.any()) for name, p in loaded.model.named_parameters() if "lora_B" in name)


def detach_lora(loaded: LoadedModel) -> None:
    """Take adapters out again, whatever they are called. The weights that they were put on stay as they are."""
    for name, layer in list(lora_layers(loaded)):
        parent, _, own = name.rpartition(".")
        setattr(loaded.model.get_submodule(parent), own, layer.get_base_layer())


@contextmanager
def base_policy(loaded: LoadedModel) -> Iterator[LoadedModel]:
    """Within this block the model computes what it computed before training: adapters are off.

    Switches module state, so nothing else may run the model meanwhile.

    Raises:
        ModelError: there are no adapters, so the weights before training are not in memory.
    """
    layers = [layer for _, layer in lora_layers(loaded)]
    if not layers:
        raise ModelError(f"{loaded.name} has no LoRA adapters; the reference of a full fine-tuning is a frozen copy")
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield loaded
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def trainable_parameters(loaded: LoadedModel) -> dict[str, Parameter]:
    """Parameters with gradients, by name: adapters after `attach_lora`, otherwise all; tied ones appear once."""
    return {name: parameter for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}


def _head_name(loaded: LoadedModel) -> str:
    head = loaded.model.get_output_embeddings()
    names: list[str] = [name for name, module in loaded.model.named_modules() if module is head]
    return names[0]


def _gpus(loaded: LoadedModel) -> list[Any]:
    return [loaded.device] if loaded.device.type == "cuda" else []
