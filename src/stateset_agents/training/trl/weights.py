"""The agent's own model while TRL trains it, and what comes out.

Invariant: TRL trains the very modules that the agent speaks with. Afterwards the model is what it was in everything but
its weights: no adapters, no hooks, no patched forward, the same flags. Adapters are merged in float32 and rounded once,
so that the agent in memory and the folder on disk have the same weights; a run that fails leaves the weights that
adapters were put on as they were.

With `use_4bit` or `use_8bit` adapters are put on rounded weights, and merged into those, unrounded: that is the policy
that spoke, was scored and was trained. In the weights of before, which it never met, an adapter makes another policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from ...core.errors import TrainingStopped
from ...models import LoadedModel, detach_lora, merged_state_dict
from ...models.quantized import quantize, restore
from ...models.tensors import first_non_finite

if TYPE_CHECKING:
    from .config import TRLGRPOConfig

ADAPTER = "default"
"""What TRL calls the adapters that it makes."""

_PATCHED = ("forward", "_original_forward", "peft_config", "_require_grads_hook", "_require_grads_hooks")
_SETTINGS = ("use_cache", "pad_token_id")


class ModelUnderTraining:
    """A context in which a model may be given to TRL.

    Args:
        loaded: of the agent; without adapters.
        config: of the run.
        device: where rounded weights are; before and after, the model is where it is now.
    """

    def __init__(self, loaded: LoadedModel, config: TRLGRPOConfig, device: str) -> None:
        self.loaded = loaded
        self._config, self._device, self._home = config, device, loaded.device
        self._trainable: dict[str, bool] = {}
        self._settings: list[tuple[Any, str, Any]] = []
        self._merged: Mapping[str, Tensor] | None = None
        self._hooks_before: set[int] = set()
        self._plain: Mapping[str, nn.Linear] = {}

    def __enter__(self) -> Self:
        model = self.loaded.model
        self._trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        holders = {id(one): one for one in (model.config, model.config.get_text_config(), model.generation_config)}
        self._settings = [
            (holder, name, getattr(holder, name)) for holder in holders.values() for name in _SETTINGS
            if hasattr(holder, name)
        ]  # fmt: skip
        self._hooks_before = set(self._hooks)
        if not self._config.use_lora:
            model.float()  # a small step is less than a half-precision weight's last bit
        if self._config.bits is not None:
            self._plain = quantize(self.loaded, self._config.bits, self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        model = self.loaded.model
        _store_activations(model)
        for hook in self._hooks.keys() - self._hooks_before:
            del self._hooks[hook]
        for name in _PATCHED:
            vars(model).pop(name, None)
        detach_lora(self.loaded)
        if self._plain:
            restore(self.loaded, self._plain, self._home)
        if self._merged is not None:
            model.load_state_dict(self._merged)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._trainable.get(name, True))
            parameter.grad = None
        for holder, name, value in self._settings:
            setattr(holder, name, value)
        model.eval()

    @property
    def _hooks(self) -> dict[int, Any]:
        """Hooks of the embedding: where activations are recomputed, its output is made to require a gradient."""
        hooks: dict[int, Any] = self.loaded.model.get_input_embeddings()._forward_hooks  # noqa: SLF001
        return hooks

    @property
    def peft_config(self) -> Any:
        """Adapters on every linear layer but the head; None trains all weights."""
        if not self._config.use_lora:
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=self._config.lora_r,
            lora_alpha=self._config.lora_alpha,
            lora_dropout=self._config.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            bias="none",
        )

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights as trained so far, adapters merged, under the model's plain names.

        Raises:
            TrainingStopped: one of them is NaN or infinite.
        """
        weights = merged_state_dict(self.loaded, adapter=ADAPTER)
        broken = first_non_finite(weights)
        if broken is not None:
            raise TrainingStopped(f"training broke the weights: {broken}. A lower learning_rate is what helps most")
        return weights

    def keep(self) -> None:
        """What the adapters learned becomes part of the weights on leaving.

        Raises:
            TrainingStopped: see `weights`.
        """
        weights = self.weights()
        self._merged = weights if self._config.use_lora else None


def _store_activations(model: Any) -> None:
    """Undo gradient checkpointing, under whichever name this release of transformers has for it."""
    if model.supports_gradient_checkpointing:
        disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
        disable()


def finite(value: object) -> bool:
    """Whether a logged number is one."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return isinstance(value, (int, float)) and math.isfinite(value)
