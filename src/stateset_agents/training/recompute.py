"""Activations that are computed again instead of being kept.

Invariant: inside `recomputed_layers` a decoder layer keeps nothing but its input between the forward and the backward
pass; the gradients are those of a pass that keeps everything. No module changes its mode: transformers' own switch acts
in train mode alone, where dropout would make the recomputed policy another one than the sampler's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ..core.errors import ModelError


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Within this block the decoder layers of a Hugging Face model recompute their activations.

    Raises:
        ModelError: the model has no layers that transformers marks as fit for it.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no layers whose activations can be recomputed: "
            "set gradient_checkpointing: false"
        )
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = _recomputing(layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return call
