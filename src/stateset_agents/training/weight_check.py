"""Whether an update moved the weights that it should move, and no others.

Invariant: weights are compared by checksums over every element, so that no copy is held. A weight need not move where
its step is too small for float32 to show, or where it has no gradient by construction: the first matrix of an adapter
whose second one is zero, an expert that no token went to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

Fail = Callable[[str, str], NoReturn]
"""Ends the run: what it means, and where to look."""

_CHUNK = 1 << 20
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NAMED = 3
_FLOAT32 = 2.0**-23


class WeightCheck:
    """The weights around one update.

    Args:
        epsilon: of AdamW, which divides a gradient by its size plus this.
        max_norm: to which the gradient is clipped.
        fail: ends the run.
    """

    def __init__(self, epsilon: float, max_norm: float, fail: Fail) -> None:
        self._epsilon = epsilon
        self._max_norm = max_norm
        self._fail = fail
        self._trained: dict[str, int] = {}
        self._frozen: dict[str, int] = {}
        self._must_move: set[str] = set()

    def before(self, trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor], rate: float | None) -> str:
        """Look at the gradients, and remember the weights.

        Args:
            trained: with their gradients, by name.
            frozen: by name.
            rate: the least learning rate of an AdamW that has no past; None where the size of a step cannot be told.

        Returns:
            What is right.
        """
        largest = {name: 0.0 if w.grad is None else float(w.grad.abs().max()) for name, w in trained.items()}
        norm = math.hypot(*(float(w.grad.norm()) for w in trained.values() if w.grad is not None))
        if not norm:
            self._fail(
                "the gradient is 0 in every weight, although the rewards differ: the loss does not depend on them",
                "the model's forward pass must not detach its states or run without gradients",
            )
        held = {name for name, size in largest.items() if size}
        without = [
            name
            for name, weight in trained.items()
            if weight.dim() >= 2 and name not in held and _partner(name) not in held and ".experts." not in name
        ]
        if without:
            self._fail(
                f"{len(without)} of {len(trained)} trainable weights have no gradient ({_some(without)}): nothing that "
                "is done to them changes the loss",
                "freeze them if that is meant; otherwise the model's forward pass detaches its states on the way",
            )
        clip = min(1.0, self._max_norm / norm)
        self._must_move = set()
        for name in held if rate is not None else ():
            size = largest[name] * clip
            step = (rate or 0.0) * size / (size + self._epsilon)
            if step > _FLOAT32 * float(trained[name].detach().abs().max()):
                self._must_move.add(name)
        self._trained, self._frozen = _checksums(trained), _checksums(frozen)
        return f"gradient in {len(held)} of {len(trained)} weights"

    def after(self, trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor]) -> str:
        """Look at the weights again.

        Returns:
            What is right.
        """
        now = _checksums(trained)
        moved = {name for name in now if now[name] != self._trained[name]}
        stayed = [name for name in now if name in self._must_move and name not in moved]
        if stayed:
            self._fail(
                f"{len(stayed)} of {len(trained)} trainable weights have a gradient and did not move ({_some(stayed)})",
                "the optimizer must hold every trainable weight, and the very tensors that the model computes with",
            )
        still = _checksums(frozen)
        changed = [name for name in still if still[name] != self._frozen[name]]
        if changed:
            self._fail(
                f"{len(changed)} of {len(frozen)} frozen weights moved ({_some(changed)})",
                "nothing but the adapters may be written to: look for an optimizer that holds frozen weights, or for "
                "adapters that were merged into them",
            )
        return f"{len(moved)} of them moved" + (f" and none of {len(frozen)} frozen ones" if frozen else "")


@torch.no_grad()
def checksum(weight: Tensor) -> int:
    """Of every element and its place: any one that changes, changes it. Needs 16 MB, whatever the size."""
    flat = weight.detach().reshape(-1)
    flat = flat.view(_WHOLE[flat.element_size()])
    odd = torch.arange(1, 2 * min(_CHUNK, len(flat)), 2, device=flat.device)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for piece in flat.split(_CHUNK):
        total = total * 31 + (piece.long() * odd[: len(piece)]).sum()
    return int(total)


def _checksums(weights: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: checksum(weight) for name, weight in weights.items()}


def _partner(name: str) -> str:
    """The other matrix of an adapter."""
    return name.replace("lora_A", "lora_B") if "lora_A" in name else name.replace("lora_B", "lora_A")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
