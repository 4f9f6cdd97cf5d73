"""What the last bits of a run depend on beside its settings, and whether a resumed run has the same.

Invariant: a continuation is called exact only where everything that is known to change a bit is as it was. Sums are the
same on the same processor, with the same number of threads, the same versions and the same cut into micro-batches.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..config.training import TrainingConfig, make_plan
from .schedule import learning_rate

_CUT = ("batch_size", "gradient_checkpointing")


def identity(device: torch.device) -> dict[str, Any]:
    """Versions and machine of this process, as JSON.

    Args:
        device: where the model is.
    """
    return {
        "stateset_agents": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


@cache
def _processor() -> str:
    """The processor's name; its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def inexact(record: Mapping[str, Any], config: TrainingConfig, device: torch.device) -> Iterator[str]:
    """Why the rest of a run will not be what it would have been undisturbed, to the bit; nothing if it will be.

    Args:
        record: the trainer's, from the checkpoint.
        config: of the run now.
        device: where the model is.
    """
    if device.type != "cpu":
        yield f"a {device.type} device adds up in no fixed order"
    then, now = record.get("identity"), identity(device)
    if then is None:
        yield "its checkpoint does not say on what machine it was written"
    else:
        for name in dict.fromkeys([*now, *then]):
            if then.get(name) != now.get(name):
                yield f"{name} is {now.get(name)} instead of {then.get(name)}"
    before = record["config"]
    for name in _CUT:
        if before[name] != getattr(config, name):
            yield f"{name} is {getattr(config, name)} instead of {before[name]}: the same updates but for rounding"
    if _other_rates(config, before["num_episodes"], record["step"]):
        yield f"{config.num_episodes} episodes have another learning-rate schedule than {before['num_episodes']}"


def _other_rates(config: TrainingConfig, num_episodes: int, steps: int) -> bool:
    """Whether the steps so far would have had other learning rates in a run of the present length."""
    rates = []
    for episodes in (num_episodes, config.num_episodes):
        plan = make_plan(config.model_copy(update={"num_episodes": episodes}))
        warmup, total = plan.warmup_steps, plan.total_steps
        rates.append([learning_rate(config, step, warmup_steps=warmup, total_steps=total) for step in range(steps)])
    return rates[0] != rates[1]
