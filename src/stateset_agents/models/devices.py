"""Where a model may live on this machine.

Invariant: a device that is chosen exists; one that was asked for and is not there is a ModelError that says what is.
"""

from __future__ import annotations

import re

from ..core.errors import ModelError


def choose_device(device: str | None) -> str:
    """The device to use.

    Args:
        device: "cpu", "cuda", "cuda:N" or "mps"; None means the first CUDA GPU if there is one, otherwise the CPU. An
            Apple GPU is used only where it is asked for.

    Raises:
        ModelError: there is no such device here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return "cuda" if gpus else "cpu"
    if device == "cpu" or (device == "mps" and torch.backends.mps.is_available()):
        return device
    number = re.fullmatch(r"cuda(?::(\d+))?", device)
    if number and int(number[1] or 0) < gpus:
        return device
    if number and torch.version.cuda is None and torch.version.hip is None:
        reason = f"this build of torch ({torch.__version__}) has no CUDA"
    elif number:
        reason = f"torch sees {gpus or 'no'} CUDA {'GPU' if gpus == 1 else 'GPUs'} here"
    else:
        reason = "there is none of that name here"
    there = [
        "cpu",
        *(f"cuda:{index}" for index in range(gpus)),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
    raise ModelError(
        f'device is "{device}", but {reason}; take {" or ".join(there)}, or leave it out (--no-gpu: the CPU)'
    )
