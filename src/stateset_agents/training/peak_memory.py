"""How much memory this process had at most so far."""

from __future__ import annotations

import sys

import torch


def peak_memory(device: torch.device | None) -> dict[str, float | None]:
    """The part of a step's row that says so, in MB of 10^6 bytes; null where there is no such device.

    Args:
        device: where the model is, if there is one.
    """
    gpu = None
    if device is not None and device.type == "cuda":
        gpu = torch.cuda.max_memory_allocated(device) / 1e6
    return {"memory_mb": _peak_bytes() / 1e6, "gpu_memory_mb": gpu}


def _peak_bytes() -> int:
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
