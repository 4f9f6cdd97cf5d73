"""A frozen model that reads a conversation and gives a vector.

Invariant: the vector depends on the conversation alone. Each is read by itself, at its own length: padding and
neighbours change the last bits of a hidden state, and with them a reward. The weights are never trained, and never
those of an agent that is.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ..chat.codec import ChatCodec
from ..core.errors import DataError, ModelError
from ..models import LoadedModel, load_model
from ..models.frozen import in_one_thread
from ..models.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["both", "last", "mean"]
POOLINGS: tuple[Pooling, ...] = ("both", "last", "mean")


class Backbone:
    """The last layer's hidden states of a causal model, pooled. The model is loaded when it is first needed.

    "last" takes the state of the last token. It is the only one that has read the whole conversation, since each token
    reads what is before it, and what a language model predicts from it depends on all of that. "mean" averages over all
    tokens from the first reply on: it knows better which words were said, and less of how they hang together. "both" is
    one after the other. Of SmolLM2's own answers to customers, in pairs ordered by four simple rules, heads on "both"
    ordered 0.79 of the held-out ones right on average, on "mean" 0.76, on "last" 0.70 (`benchmarks/learned_reward.py`).

    Args:
        name: any name that `models.load_model` takes, other than a stub's.
        pooling: "both", "last" or "mean".
        dtype: see `models.load_model`.
        device: see `models.load_model`.
        expected: identity that the model must have; None: any.

    Raises:
        ValueError: there is no such pooling.
    """

    def __init__(
        self,
        name: str,
        pooling: Pooling = "both",
        *,
        dtype: str = "auto",
        device: str | None = None,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}; want {' or '.join(map(repr, POOLINGS))}")
        self.name, self.pooling, self.device, self.expected = name, pooling, device, expected
        self._dtype = dtype
        self._reading = threading.Lock()

    @cached_property
    def model(self) -> LoadedModel:
        """Weights and tokenizer.

        Raises:
            ModelError: there is no such model, it has no weights or no chat template, or it is not the expected one.
        """
        loaded = _frozen(self.name, self._dtype, self.device)
        if self.expected is not None and loaded.identity != self.expected:
            raise ModelError(
                f"{self.name} is not the model that the reward was fitted on: its identity is {loaded.identity}, not "
                f"{dict(self.expected)}. Get that one, or fit the reward anew"
            )
        return loaded

    @property
    def dtype(self) -> str:
        """Kind of the weights, such as "float32"."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def _codec(self) -> ChatCodec:
        return ChatCodec(self.model.tokenizer, model_stop_ids=self.model.stop_ids)  # type: ignore[arg-type]

    def read(self, messages: Sequence[Mapping[str, str]]) -> tuple[tuple[int, ...], int]:
        """A conversation's token ids, and the place of the first that its replies bring in.

        Raises:
            DataError: it does not fit into the model's context, or holds what cannot be rendered.
            ModelError: the chat template refuses it, or see `model`.
        """
        with self._reading, quiet_transformers():  # it warns of rows that are too long, which are refused here
            ids = self._codec.open(messages, add_generation_prompt=False).ids
            begins = next((at for at, message in enumerate(messages) if message["role"] == "assistant"), 0)
            opening = self._codec.open(messages[:begins]).ids if begins else ()
        if len(ids) > self.model.max_context:
            raise DataError(
                f"the conversation has {len(ids)} tokens, but the context of {self.name} is {self.model.max_context}"
            )
        pairs = zip(ids, opening, strict=False)
        shared = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(opening)))
        return ids, min(shared, len(ids) - 1)

    def vector(self, ids: Sequence[int], start: int) -> Tensor:
        """(width,) on the CPU in float64, of what `read` gave.

        Raises:
            ModelError: the model gives numbers that are not finite.
        """
        return in_one_thread(self._vector, ids, start)

    def _vector(self, ids: Sequence[int], start: int) -> Tensor:
        import torch

        with torch.inference_mode():
            row = torch.tensor([ids], device=self.model.device)
            states: Tensor = self.model.model.base_model(row, use_cache=False).last_hidden_state[0].double()
            parts = {"last": states[-1], "mean": states[start:].mean(dim=0)}
            pooled = torch.cat([parts[self.pooling]] if self.pooling in parts else list(parts.values()))
        if not bool(pooled.isfinite().all()):
            raise ModelError(f"{self.name} gives hidden states that are not finite numbers in {self.dtype}")
        return pooled.cpu().clone()


_loaded: weakref.WeakValueDictionary[tuple[str, str, str | None], LoadedModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _frozen(name: str, dtype: str, device: str | None) -> LoadedModel:
    """The model of that name, once in memory for all rewards that use it. It is nobody else's, so it is never trained.

    Raises:
        ModelError: see `Backbone.model`.
    """
    with _loading:
        found = _loaded.get((name, dtype, device))
        if found is None:
            found = load_model(name, dtype=dtype, device=device)
            found.model.requires_grad_(False)
            _loaded[name, dtype, device] = found
        return found
