"""A Hugging Face causal LM driven over packed tokens: one row of tokens, attention decided by a plan.

Invariant: the model's own code computes everything but attention. `PackedModel.hidden(ids, positions, plan)` puts any
mixture of pieces into one `(1, T)` row; for each layer the plan says which keys a piece sees. The engine's plan reads
and writes a cache, the learner's plan lets the samples of a group share their prompt.

It works for every architecture that calls transformers' attention interface with plain softmax attention. Whether a
model is one of these is not guessed from its name: `self_check` compares with the model's own forward pass.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..core.errors import ModelError

ATTENTION = "stateset_packed"

UNSUPPORTED = ("softcap", "s_aux", "position_bias", "alibi", "head_mask")
"""Arguments by which models ask their attention for more than a plan computes: capped scores, sinks, biases, masks."""


class AttentionPlan(Protocol):
    """Which keys each packed token sees."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention of one layer.

        Args:
            layer: index of the layer.
            query: (1, heads, T, head_dim).
            key, value: (1, kv_heads, T, head_dim) of the packed tokens.
            scale: factor on the scores.
            window: sliding window in tokens, or None.

        Returns:
            (1, T, heads, head_dim).
        """
        ...


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: AttentionPlan | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if packing is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} calls attention with {name!r}, which is not supported over packed tokens"
            )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: Any = module.layer_idx
    return packing.attend(layer, query, key, value, scale, sliding_window), None


AttentionInterface.register(ATTENTION, _packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class Head:
    """The output layer: a matrix, maybe a bias, and the scaling or capping that some families put on their logits.

    Args:
        layer: the linear output layer.
        config: the model's text config; `logit_scale`, `logits_scaling` and `final_logit_softcapping` are honoured.
    """

    def __init__(self, layer: nn.Module, config: Any) -> None:
        self._layer: Any = layer
        scale = getattr(config, "logit_scale", None)
        divisor = getattr(config, "logits_scaling", None)
        self._scale = (1.0 if scale is None else float(scale)) / (1.0 if divisor is None else float(divisor))
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)

    @property
    def weight(self) -> Tensor:
        """(vocabulary, hidden)."""
        weight: Tensor = self._layer.weight
        return weight

    @property
    def bias(self) -> Tensor | None:
        """(vocabulary,), or None."""
        bias: Tensor | None = self._layer.bias
        return bias

    @property
    def trained(self) -> list[nn.Parameter]:
        """What of it an update changes."""
        layer: nn.Module = self._layer
        return [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits of (n, hidden_size) states: (n, vocabulary), a tensor of their own."""
        logits: Tensor = self._layer(hidden).to(torch.float32, copy=True)
        if self._scale != 1.0:
            logits *= self._scale
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def slope(self, logits: Tensor) -> Tensor | float:
        """Derivative of the logits by the layer's raw output, at these logits."""
        if self._cap is None:
            return self._scale
        return (1.0 - (logits / self._cap).square()) * self._scale


class PackedModel:
    """The backbone and the head of a causal LM, called over packed tokens.

    Args:
        model: a Hugging Face causal LM, with or without adapters in it.

    Raises:
        ModelError: the model has no output head.
    """

    def __init__(self, model: nn.Module) -> None:
        causal_lm: Any = model
        self.config = causal_lm.config.get_text_config()
        self._causal_lm = causal_lm
        self._backbone = causal_lm.base_model
        layer = causal_lm.get_output_embeddings()
        if layer is None:
            raise ModelError(f"{type(causal_lm).__name__} has no output head: it is not a causal language model")
        self.head = Head(layer, self.config)
        causal_lm.config._attn_implementation = ATTENTION
        self._no_mask = torch.empty(1, 1, 1, 1)

    @property
    def model_name(self) -> str:
        """Name of the model's class, for messages."""
        return type(self._causal_lm).__name__

    def named_weights(self) -> dict[str, Tensor]:
        """Every parameter of the model, tied ones once."""
        return dict(self._causal_lm.named_parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def vocabulary(self) -> int:
        """Number of logits."""
        return self.head.weight.shape[0]

    @property
    def has_experts(self) -> bool:
        """Whether tokens are sorted by expert, so that the number of rows in a linear call follows from all of them."""
        return any(name.rpartition(".")[2] == "experts" for name, _ in self._causal_lm.named_modules())

    def hidden(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Last hidden states of packed tokens.

        Args:
            ids, positions: (T,), int64.
            plan: which keys each token sees.

        Returns:
            (T, hidden).
        """
        output = self._backbone(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=self._no_mask,
            use_cache=False,
            packing=plan,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    @torch.no_grad()
    def stock_logits(self, ids: Tensor) -> Tensor:
        """Logits of one row by the model's own forward pass with eager attention, which leaves nothing out.

        Args:
            ids: (T,), int64.

        Returns:
            (T, vocabulary), float32.
        """
        config = self._causal_lm.config
        config._attn_implementation = "eager"
        try:
            logits: Tensor = self._causal_lm(input_ids=ids[None], use_cache=False).logits[0].float()
        finally:
            config._attn_implementation = ATTENTION
        return logits
