"""Checks on named tensors that everything which is written to disk goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name and kind of the first NaN or infinity in any floating tensor; None if all numbers are finite."""
    import torch

    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        # The extremes of 8-bit floats are not implemented. NaN is an extreme of everything it is in.
        low, high = torch.aminmax(tensor.detach() if tensor.element_size() > 1 else tensor.detach().float())
        if not bool(low.isfinite() and high.isfinite()):
            return f"{name} holds {'NaN' if bool(low.isnan()) else 'an infinity'}"
    return None
