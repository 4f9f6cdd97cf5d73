"""Weights of linear layers, laid out for the CPU's matrix units before they are needed.

Invariant: a layout is that of the weight as it is now: one that was replaced or written to since is laid out again, and
what a layer computes does not change by a bit. Without one, a pass over few tokens brings all weights into that order
anew; a copy in it costs as much memory as the weights, so large models do without.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

_TOKENS = 64
"""Width of a pass that oneDNN is told to expect; others are computed too."""
_ORDER, _COMPUTE = "_reorder_linear_weight", "_linear_pointwise"


class WeightLayout:
    """Context in which the bfloat16 linear layers of a model use weights that were laid out beforehand.

    Only for inference: where gradients are enabled, as in another thread, and outside of it, the model is as it was.

    Args:
        model: its layers of exactly the class `nn.Linear` are taken.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers: list[_Layer] = []
        self.forget()

    def forget(self) -> None:
        """Lay everything out again before the next pass: weights or layers may have changed without a trace."""
        linear = [module for module in self._model.modules() if type(module) is nn.Linear]
        on_cpu = all(module.weight.device.type == "cpu" for module in linear)
        half = any(module.weight.dtype == torch.bfloat16 for module in linear)  # others need not be looked at each time
        self._layers = [_Layer(module) for module in linear] if on_cpu and half and available() else []

    def __enter__(self) -> None:
        try:
            for layer in self._layers:
                layer.enter()
        except BaseException:  # no memory, say: then nobody calls __exit__
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in self._layers:
            layer.leave()


def available() -> bool:
    """Whether this build of torch and this processor can do it."""
    if not torch.backends.mkldnn.is_available():
        return False
    supported, order, compute = map(_operator, ("_is_mkldnn_bf16_supported", _ORDER, _COMPUTE))
    return None not in (supported, order, compute) and bool(supported())


def _operator(name: str) -> Any:
    """One of oneDNN's operators, for which torch has no public name; None in a build without it."""
    return getattr(torch.ops.mkldnn, name, None)


class _Layer:
    """One linear layer."""

    def __init__(self, module: nn.Linear) -> None:
        self._module = module
        self._known: tuple[Any, ...] = ()
        self._forward: Callable[[Tensor], Tensor] | None = None
        self._placed: Callable[[Tensor], Tensor] | None = None

    def enter(self) -> None:
        weight, bias = self._module.weight, self._module.bias
        # Each write in place gives another version, an assignment to `.data` another address.
        state = (weight.data_ptr(), weight._version, weight.dtype, id(bias))  # noqa: SLF001
        if state != self._known:
            self._forward = self._laid_out(weight, bias)
            self._known = state
        if self._forward is not None and "forward" not in vars(self._module):  # somebody else's stays
            self._module.forward = self._placed = self._forward  # type: ignore[method-assign, assignment]

    def leave(self) -> None:
        if self._placed is not None and vars(self._module).get("forward") is self._placed:
            del vars(self._module)["forward"]
        self._placed = None

    @staticmethod
    def _laid_out(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        if weight.dtype != torch.bfloat16:
            return None
        compute = _operator(_COMPUTE)
        ordered = _operator(_ORDER)(weight.detach(), _TOKENS)

        def forward(given: Tensor) -> Tensor:
            if torch.is_grad_enabled():  # of another thread, which trains the same model
                return nn.functional.linear(given, weight, bias)
            result: Tensor = compute(given, ordered, bias, "none", [], "")
            return result

        return forward
