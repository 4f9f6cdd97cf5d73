"""Checks on named tensors that everything which is written to disk goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name and kind of the first NaN or infinity in any floating tensor; None if all numbers are finite."""
    for name, tensor in tensors.items():
        # One pass without a mask as large as the tensor: a sum of absolutes is finite only if every term is.
        if tensor.is_floating_point() and tensor.numel() and not bool(tensor.abs().max().isfinite()):
            kind = "NaN" if bool(tensor.isnan().any()) else "an infinity"
            return f"{name} holds {kind}"
    return None
