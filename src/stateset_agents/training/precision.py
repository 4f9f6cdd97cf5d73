"""Weights in two precisions: a half-precision copy computes, float32 masters are trained.

Invariant: gradients are summed and applied in float32. bf16 has 8 bits of mantissa: a step of 5e-6 on a weight of 0.05
is below half its last bit, so bf16 weights alone would not move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MasterWeights:
    """Float32 masters of the trainable parameters of a model that computes in another precision.

    Parameters that are float32 already are their own masters. Construct it before the model is cast.

    Args:
        model: its trainable parameters are taken; frozen ones are only cast.
        compute: the precision to compute in; the model is cast in place.
    """

    def __init__(self, model: nn.Module, compute: torch.dtype) -> None:
        self.loaded = False
        """Whether other weights were put into the masters than the model came with."""
        self.names: list[str] = []
        self.masters: list[Tensor] = []
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        self._frozen: list[tuple[nn.Parameter, Tensor]] = []
        self._hooks = []
        adapters = any("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                if parameter.dtype != compute:
                    self._frozen.append((parameter, parameter.data))
                parameter.data = parameter.data.to(compute)
                continue
            self.names.append(name)
            if adapters or compute == torch.float32:
                parameter.data = parameter.data.float()
                self.masters.append(parameter)
                continue
            master = parameter.detach().float().clone()
            self.masters.append(master)
            self._pairs.append((parameter, master))
            self._hooks.append(parameter.register_post_accumulate_grad_hook(self._collector(master)))
            parameter.data = parameter.data.to(compute)

    @staticmethod
    def _collector(master: Tensor) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            gradient: Any = parameter.grad
            parameter.grad = None
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad += gradient

        return collect

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the computing copy, after an optimizer step or a load."""
        for parameter, master in self._pairs:
            parameter.copy_(master)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model its float32 weights back, frozen ones as they were, and stop collecting gradients."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for parameter, master in self._pairs:
            parameter.data = master.detach()
        self._pairs.clear()
        for parameter, original in self._frozen:
            parameter.data = original
        self._frozen.clear()

    def state(self) -> dict[str, Tensor]:
        """Masters by parameter name."""
        return dict(zip(self.names, self.masters, strict=True))

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`.

        Raises:
            KeyError: a parameter is missing.
        """
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(state[name])
        self.loaded = True
        self.publish()
