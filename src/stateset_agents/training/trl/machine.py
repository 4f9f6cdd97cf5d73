"""What this machine can do of what a TRL config asks.

Invariant: asked before any model is loaded. A precision that the machine lacks is switched off, and said; what
cannot be trained is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import ConfigError
from ...models.devices import choose_device

if TYPE_CHECKING:
    from .config import TRLGRPOConfig


@dataclass(frozen=True)
class Precision:
    """In which precision TRL learns.

    Attributes:
        bf16, fp16: at most one of them; neither is float32.
        use_cpu: whether the model is on the CPU.
        notes: what was asked for and is not there.
    """

    bf16: bool
    fp16: bool
    use_cpu: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: TRLGRPOConfig, device: str | None) -> Precision:
        """The precision on `device`; None chooses it as `device_map` says.

        Raises:
            ConfigError, ModelError: `device_map` names no device of this machine.
        """
        import torch

        place = device or choose_device(wanted_device(config))
        on_gpu = place.startswith("cuda")
        if not on_gpu:
            asked = "bf16" if config.bf16 else "fp16" if config.fp16 else None
            notes = () if asked is None else (f"{asked} is off: it needs a CUDA GPU, and the model is on {place}",)
            return cls(False, False, place == "cpu", notes)
        if config.bf16 and not torch.cuda.is_bf16_supported():
            return cls(False, False, False, ("bf16 is off: this GPU does not compute in it; fp16=True is faster",))
        return cls(config.bf16, config.fp16, False)


def wanted_device(config: TRLGRPOConfig) -> str | None:
    """The device that `device_map` names; None leaves the choice to the loader.

    Raises:
        ConfigError: it asks for something else than one device.
    """
    place = config.device_map
    if place is None or place == "auto":
        return None
    if place in ("cpu", "mps") or place.startswith("cuda"):
        return place
    raise ConfigError(
        f'device_map is "{place}"; want auto, cpu or cuda: the model that learns also holds the conversations, so it '
        "is not split"
    )


def why_not_quantized(config: TRLGRPOConfig, device: str | None) -> str | None:
    """Why `use_8bit` or `use_4bit` cannot be had; None if it can, or is not asked for.

    Args:
        config: of the run.
        device: where the model is or will be; None chooses it as `device_map` says.

    Raises:
        ConfigError, ModelError: `device_map` names no device of this machine.
    """
    if config.bits is None:
        return None
    from ...models.quantized import why_not

    reason = why_not(config.bits, device or choose_device(wanted_device(config)))
    return None if reason is None else f"{config.quantized} {reason}"


def require_machine(config: TRLGRPOConfig, device: str | None) -> None:
    """Refuse what cannot work here, before any model is loaded.

    Args:
        config: of the run.
        device: where the agent's model is or is asked to be; None if neither.

    Raises:
        ConfigError: rounded weights that this machine has no means for, or several processes.
        ModelError: there is no such device.
    """
    reason = why_not_quantized(config, None if device is None else choose_device(device))
    if reason is not None:
        raise ConfigError(f"{reason}; or leave {config.quantized} out")
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
        raise ConfigError(
            "TRL training runs in one process here: each process would hold its own conversations; start it without "
            "torchrun or accelerate launch"
        )


def require_one_gpu(device: str) -> None:
    """Refuse a machine on which TRL would spread the model over several GPUs, or take another than the agent's.

    Raises:
        ConfigError: several GPUs are visible, and the model is to be on one of them.
    """
    import torch

    if device.startswith("cuda") and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible, and TRL would take all of them: set CUDA_VISIBLE_DEVICES "
            "to the number of one, or device_map to cpu"
        )
