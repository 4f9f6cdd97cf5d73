"""A model that is ready to use: weights, tokenizer and what is known about both.

Invariant: `model` is a Hugging Face causal LM in eval mode, `tokenizer` has a chat template and a padding token, and
`identity` says in JSON which weights these were, so that a checkpoint can tell whether its base is the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .facts import LENGTH_KEYS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNBOUNDED = 2**31 - 1
"""`max_context` of a model whose config states no bound, in tokens."""

_SANE_TOKENIZER_LENGTH = 10**9


@dataclass
class LoadedModel:
    """Weights and tokenizer under the name by which the user asked for them.

    Attributes:
        name: the name as the user wrote it.
        model: a Hugging Face causal LM in eval mode. LoRA layers are put into it in place.
        tokenizer: has a chat template and a padding token.
        identity: JSON-able: `name`, and `revision` (hub) or `sha256` of each weight file (everything else).
        max_context: longest sequence that the model was built for, prompt and reply together, in tokens; with LongRoPE
            the length up to which it was trained at first.
        stop_ids: ids that end a reply according to the model's generation config and config, ascending.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: dict[str, Any] = field(default_factory=dict)
    max_context: int = UNBOUNDED
    stop_ids: tuple[int, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the embedding lies, which is where token ids must be put."""
        return self._embedding().device

    @property
    def dtype(self) -> torch.dtype:
        """The base weights' dtype. LoRA adapters are float32 whatever this says."""
        return self._embedding().dtype

    def _embedding(self) -> torch.Tensor:
        weight: torch.Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
        return weight

    @classmethod
    def of(
        cls, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, identity: dict[str, Any]
    ) -> LoadedModel:
        """Wrap a model and tokenizer, reading context length and stop ids from their configs."""
        model.eval()
        return cls(
            name=name,
            model=model,
            tokenizer=tokenizer,
            identity=identity,
            max_context=_max_context(model.config, tokenizer),
            stop_ids=_stop_ids(model),
        )


def _max_context(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    text_config = config.get_text_config()
    for key in LENGTH_KEYS:
        length = getattr(text_config, key, None)
        if isinstance(length, int) and length > 0:
            return min(length, _longrope_bound(text_config))
    length = tokenizer.model_max_length
    return int(length) if length < _SANE_TOKENIZER_LENGTH else UNBOUNDED


def _longrope_bound(text_config: Any) -> int:
    """Length at which LongRoPE changes the rotation of all positions, in every row of a pass.

    Beyond it what a token means would depend on its neighbours, and on the length that its own row will have.
    """
    rope = getattr(text_config, "rope_parameters", None) or {}
    bounds = [
        int(part["original_max_position_embeddings"])
        for part in (rope, *rope.values())
        if isinstance(part, dict) and part.get("rope_type") == "longrope"
    ]
    return min(bounds, default=UNBOUNDED)


def _stop_ids(model: PreTrainedModel) -> tuple[int, ...]:
    ids: set[int] = set()
    for holder in (model.generation_config, model.config.get_text_config()):
        found = getattr(holder, "eos_token_id", None)
        if isinstance(found, int):
            ids.add(found)
        elif isinstance(found, Iterable):
            ids.update(int(one) for one in found)
    return tuple(sorted(ids))
