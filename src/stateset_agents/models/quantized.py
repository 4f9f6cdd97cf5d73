"""Linear layers whose weights are kept in 4 or 8 bits, under adapters.

Invariant: a layer computes with the very numbers that its bits stand for, by one sum, whoever asks: a sampled reply,
a learning step, and the plain layer that is saved. So what is trained is what spoke and what is written down.

bitsandbytes rounds and unrounds; the product is torch's, of the unrounded weights, as QLoRA (2305.14314) has it. Its
own layers are not taken: in 8 bits they round activations too, but not wherever they learn, and treat a column apart if
any row of the pass has an outlier in it, so that a reply would depend on its neighbours. They also need a model that
transformers loaded in this form, which an agent's model need not be.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..core.errors import ModelError
from .loaded import LoadedModel

Bits = Literal[4, 8]
INSTALL = "pip install 'grpo-agent-framework[quantization]'"
BLOCK = 64
"""Weights that share one scale in 4 bits; in 8 bits a row shares one."""


class QuantizedLinear(nn.Linear):
    """A linear layer with a rounded weight. Nothing in it is trained, and it stays on its device.

    In a state dict it is a plain layer: its `weight` is there, unrounded, on the CPU.

    Args:
        plain: the layer whose weight is rounded; it is not changed.
        bits: 4 (NormalFloat, with rounded scales) or 8 (a whole number and a scale for each row).
    """

    def __init__(self, plain: nn.Linear, bits: Bits) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = plain.in_features, plain.out_features, bits
        bias = plain.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._dtype = plain.weight.dtype
        functional = _functional()
        weight = plain.weight.detach().contiguous()
        if bits == 4:
            self._codes, self._scales = functional.quantize_4bit(
                weight, blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
            )
        else:
            self._codes, self._scales, _ = functional.int8_vectorwise_quant(weight.half())

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """What the bits stand for: (out_features, in_features), in the dtype of the layer that was rounded."""
        functional = _functional()
        if self.bits == 4:
            weight: Tensor = functional.dequantize_4bit(self._codes, self._scales)
        else:
            weight = functional.int8_vectorwise_dequant(self._codes, self._scales)
        return weight.to(self._dtype)

    def forward(self, given: Tensor) -> Tensor:
        """See `nn.Linear`."""
        kind = given.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype
        result: Tensor = _Product.apply(given.to(dtype), self)  # type: ignore[no-untyped-call]
        return result

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight.cpu()  # one by one: the device may not hold all of them unrounded


class _Product(torch.autograd.Function):
    """The unrounded weight is made again for the gradient: kept until then, all of them would be in memory at once."""

    @staticmethod
    def forward(context: Any, given: Tensor, layer: QuantizedLinear) -> Tensor:
        context.layer = layer
        bias = layer.bias
        return nn.functional.linear(given, layer.weight.to(given.dtype), None if bias is None else bias.to(given.dtype))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ context.layer.weight.to(gradient.dtype), None


def quantize(loaded: LoadedModel, bits: Bits, device: str | torch.device) -> Mapping[str, nn.Linear]:
    """Round the weights of all linear layers but the head. Embedding, norms and head stay as they are.

    Args:
        loaded: changed in place; without adapters.
        bits: 4 or 8.
        device: where the model is afterwards. Never more than one layer is there unrounded.

    Returns:
        The layers as they were, by name, in the machine's main memory; `restore` takes them.

    Raises:
        ModelError: the model has no such layers. It is as it was then.
    """
    model = loaded.model
    head = model.get_output_embeddings()
    linear = {name: part for name, part in model.named_modules() if type(part) is nn.Linear and part is not head}
    if not linear:
        raise ModelError(
            f"{loaded.name} cannot be kept in {bits} bits: {type(model).__name__} has no linear layers beside its head"
        )
    plain: dict[str, nn.Linear] = {}
    home = loaded.device
    try:
        for name, layer in linear.items():
            plain[name] = layer
            model.set_submodule(name, QuantizedLinear(layer.to(device), bits))
            layer.cpu()
        nn.Module.to(model, device)
    except BaseException:
        restore(loaded, plain, home)
        raise
    return plain


def restore(loaded: LoadedModel, plain: Mapping[str, nn.Linear], device: str | torch.device) -> None:
    """Put back what `quantize` took out, and the model on this device."""
    nn.Module.to(loaded.model, device)
    for name, layer in plain.items():
        loaded.model.set_submodule(name, layer.to(device))


def why_not(bits: Bits, device: str) -> str | None:
    """What stands against rounded weights on this device; None if they work there, which is tried.

    Args:
        bits: 4 or 8.
        device: where the model will be; it exists.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return f"needs the package bitsandbytes, which is not installed: {INSTALL}"
    steps = torch.linspace(-1, 1, BLOCK * BLOCK, device=device).view(BLOCK, BLOCK)
    layer = nn.Linear(BLOCK, BLOCK, bias=False, device=device)
    layer.weight = nn.Parameter(steps)
    try:
        found = QuantizedLinear(layer, bits).weight
        wrong = float((found - steps).abs().max())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"does not work on {device}: bitsandbytes cannot round weights to {bits} bits there ({reason})"
    if not wrong < 0.2:  # of a range of 2, in 4 bits
        return f"does not work on {device}: bitsandbytes rounds a weight to {bits} bits there and is off by {wrong:.2g}"
    return None


@cache
def _functional() -> Any:
    with _silent():
        return importlib.import_module("bitsandbytes.functional")


@contextmanager
def _silent() -> Iterator[None]:
    """Hide what bitsandbytes says when it is imported: which fast kernels of its own layers it did not find."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
