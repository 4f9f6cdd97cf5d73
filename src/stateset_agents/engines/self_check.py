"""Whether a model can be driven over packed tokens at all: found out by trying, not guessed from its name.

Invariant: a model that passes gives, row by row, the logits of its own plain (eager) forward pass, although its rows
were packed side by side, cut into pieces and continued from the cache. Everything that would need more than a row's
own keys and values shows: attention sinks, capped or biased scores, layers with a state (convolutions, linear
attention), positions that are counted instead of given, logits scaled in a way that `Head` does not know.

Rows long enough to reach a sliding window would cost too much here. So windows are compared with the config: each
layer's attention must be told the window that the config gives to that layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.errors import ModelError, is_out_of_memory
from .cache import CachedPlan, KeyValueCache
from .packed import AttentionPlan, PackedModel

TOLERANCE = 1e-3
"""Largest accepted difference of log-probs in float32, as a share of their own spread (3e-6 is usual)."""

HALF_TOLERANCE = 0.25
"""The same in half precision (0.01 to 0.1 is usual); models that can't be driven this way are off by 0.6 and more."""

HALF_SHARE = 0.9
"""Share of the positions that must agree in half precision: rounding alone can turn a position upside down in a row
that means nothing. In SmolLM2 after four steps one of 21 was off by 1.3, ours nearer to float32 than its own."""

ROWS = (12, 9)
"""Lengths in tokens of the two rows that are tried."""

PASSES = (((0, 0, 6), (1, 0, 5)), ((0, 6, 1), (1, 5, 3)), ((1, 8, 1), (0, 7, 1)), ((0, 8, 4),))
"""How they are computed: in each pass pieces `(row, start, tokens)` side by side."""


class _Watched:
    """A plan that notes the window of each layer."""

    def __init__(self, plan: AttentionPlan, windows: dict[int, int | None]) -> None:
        self._plan = plan
        self._windows = windows

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        self._windows[layer] = window
        return self._plan.attend(layer, query, key, value, scale, window)


@torch.no_grad()
def check_model(packed: PackedModel) -> float:
    """Compare packed, piecewise, cached computation with the model's own forward pass.

    Returns:
        See `difference`.

    Raises:
        ModelError: the difference is too large, or the model can't be called this way.
    """
    name = packed.model_name
    try:
        windows: dict[int, int | None] = {}
        rows = [torch.arange(n, device=packed.device) * (3 + 2 * i) % packed.vocabulary for i, n in enumerate(ROWS)]
        ours = torch.cat(_in_pieces(packed, rows, windows)).log_softmax(-1)
        stock = torch.cat([packed.stock_logits(row) for row in rows]).log_softmax(-1)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{name} can't be driven by the local engine: {reason}. The engine needs a causal LM whose attention is "
            "plain softmax attention behind transformers' attention interface."
        ) from error
    _check_windows(packed, windows)
    half = packed.head.weight.dtype != torch.float32
    gap, allowed = difference(ours, stock, half=half), HALF_TOLERANCE if half else TOLERANCE
    if not gap <= allowed:
        raise ModelError(
            f"{name} can't be driven by the local engine: its log-probs differ from those of the model's own forward "
            f"pass by {gap:.2g} of their spread (allowed {allowed}). Either its weights are not finite, or it has more "
            "than plain softmax attention: sinks, biased scores, or layers with a state."
        )
    return gap


def difference(ours: Tensor, stock: Tensor, *, half: bool) -> float:
    """How far log-probs are apart, as a share of their standard deviation.

    Args:
        ours, stock: (positions, vocabulary).
        half: computed in half precision: the positions that differ most are left out (`HALF_SHARE`).

    Returns:
        Root of the mean square; in half precision the largest one of a position that counts. NaN if any is.
    """
    squares = (ours - stock).float().square().mean(-1) / stock.float().std().clamp(min=1e-6).square()
    return float((squares.quantile(HALF_SHARE, interpolation="lower") if half else squares.mean()).sqrt())


def _in_pieces(packed: PackedModel, rows: list[Tensor], windows: dict[int, int | None]) -> list[Tensor]:
    cache = KeyValueCache()
    slots = [cache.take(len(row)) for row in rows]
    logits: list[list[Tensor]] = [[] for _ in rows]
    for pieces in PASSES:
        plan = CachedPlan([(slots[row], start, tokens) for row, start, tokens in pieces], packed.device)
        ids = torch.cat([rows[row][start : start + tokens] for row, start, tokens in pieces])
        positions = torch.cat([torch.arange(start, start + tokens, device=ids.device) for _, start, tokens in pieces])
        computed = packed.head.logits(packed.hidden(ids, positions, _Watched(plan, windows)))
        for (row, _, _), part in zip(pieces, computed.split([tokens for _, _, tokens in pieces]), strict=True):
            logits[row].append(part)
    return [torch.cat(parts) for parts in logits]


def _check_windows(packed: PackedModel, windows: dict[int, int | None]) -> None:
    config: Any = packed.config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    for layer in range(config.num_hidden_layers):
        kind = kinds[layer] if kinds else "sliding_attention" if window else "full_attention"
        expected = {"full_attention": None, "sliding_attention": window}.get(kind, 0)
        told = windows.get(layer, 0)
        if expected == 0 or (told or None) != (expected or None):
            raise ModelError(
                f"{packed.model_name} can't be driven by the local engine: layer {layer} is a {kind!r} layer"
                + (f" with a window of {expected}" if expected else "")
                + (
                    f", but its attention works with {told or 'none'}"
                    if layer in windows
                    else " without attention keys"
                )
                + ". Full attention and sliding windows are supported."
            )
