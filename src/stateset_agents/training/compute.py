"""What the machine is good at: the precision to compute in.

Invariant: half precision is used where it was asked for and helps. Whether it helps is measured on this machine: with
matrix units for bfloat16 it is several times faster than float32, without any it is several times slower.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

_SIZE = 384
_REPEATS = 40
_ENOUGH = 4
"""Repeats after which a difference by as many times is not the machine's noise."""
_CLEARLY = 1.25
"""How much slower bfloat16 must be to do without it: it needs half the memory, and a noisy machine must not decide."""

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def compute_dtype(
    mixed_precision: bool, device: torch.device, was: str | None = None
) -> tuple[torch.dtype, str | None]:
    """The precision to train and sample in.

    Args:
        mixed_precision: whether bfloat16 was asked for.
        device: where the model is.
        was: what an earlier part of the run computed in: it goes on as it began, whatever this machine is best at.

    Returns:
        bfloat16 or float32, and a sentence for the user where it is not what was asked for.
    """
    if was is not None:
        best, _ = compute_dtype(mixed_precision, device)
        slower = (
            None
            if best is PRECISIONS[was]
            else f"the run goes on in {was}, in which it began; this machine is faster in {best}"
        )
        return PRECISIONS[was], slower
    if not mixed_precision:
        return torch.float32, None
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16, None
        return torch.float32, "mixed_precision has no effect: this GPU has no bfloat16, so float32 is used"
    half, full = _fastest_products((torch.bfloat16, torch.float32), device)
    if half <= _CLEARLY * full:
        return torch.bfloat16, None
    return torch.float32, (
        f"mixed_precision has no effect: bfloat16 is {half / full:.1f} times slower than float32 on this "
        f"{device.type}, so float32 is used"
    )


def _fastest_products(dtypes: Sequence[torch.dtype], device: torch.device) -> list[float]:
    """Seconds of a matrix product at its best in each precision, measured in turn."""
    matrices = [torch.ones(_SIZE, _SIZE, dtype=dtype, device=device) for dtype in dtypes]
    best = [float("inf")] * len(matrices)
    for repeat in range(_REPEATS):
        if repeat >= _ENOUGH and max(best) > _ENOUGH * min(best):
            break  # emulated bfloat16 takes a tenth of a second for each product
        for place, matrix in enumerate(matrices):
            start = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            best[place] = min(best[place], time.perf_counter() - start)
    return best
