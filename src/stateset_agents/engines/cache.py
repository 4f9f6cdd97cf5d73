"""Keys and values of many rows: slots in pools of a few capacities.

Invariant: a row's first `length` entries are what its own tokens produced, in the order of its own path; nothing else
is ever read. Rows of one pool lie side by side, so that rows of equal length can share one attention call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 256
"""Capacity in tokens of the smallest pool; each next one is twice as large."""


class Pool:
    """Slots of one capacity. Tensors are (slots, kv_heads, capacity, head_dim), a key and a value for each layer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.slots = 0
        self._free: list[int] = []

    def take(self) -> int:
        """A free slot, the lowest first, so that rows admitted together lie side by side."""
        if not self._free:
            grown = max(8, self.slots * 2)
            self._free = list(range(self.slots, grown))
            for store in (self.keys, self.values):
                for layer, old in store.items():
                    new = old.new_zeros(grown, *old.shape[1:])
                    new[: self.slots] = old
                    store[layer] = new
            self.slots = grown
        lowest = min(self._free)
        self._free.remove(lowest)
        return lowest

    def give_back(self, slot: int) -> None:
        """Free a slot; when all are free, the memory goes too."""
        self._free.append(slot)
        if len(self._free) == self.slots:
            self.keys.clear()
            self.values.clear()
            self._free.clear()
            self.slots = 0

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value tensor of a layer, made on first use in the shape and type of `like` (1, kv_heads, T, dim)."""
        if index not in self.keys:
            shape = (self.slots, like.shape[1], self.capacity, like.shape[3])
            self.keys[index] = like.new_zeros(shape)
            self.values[index] = like.new_zeros(shape)
        return self.keys[index], self.values[index]

    @property
    def tokens(self) -> int:
        """Tokens for which memory is held."""
        return self.slots * self.capacity


@dataclass
class Slot:
    """Where one row's keys and values are."""

    pool: Pool
    index: int


class KeyValueCache:
    """All pools; hands out slots and moves a row to a larger pool when it grows."""

    def __init__(self) -> None:
        self._pools: dict[int, Pool] = {}

    def take(self, tokens: int) -> Slot:
        """A slot with room for `tokens`."""
        capacity = SMALLEST
        while capacity < tokens:
            capacity *= 2
        pool = self._pools.setdefault(capacity, Pool(capacity))
        return Slot(pool, pool.take())

    def give_back(self, slot: Slot) -> None:
        """Free a slot."""
        slot.pool.give_back(slot.index)

    def grow(self, slot: Slot, tokens: int, used: int) -> Slot:
        """Make room for `tokens`, keeping the first `used` entries. Returns the slot, maybe another one."""
        if tokens <= slot.pool.capacity:
            return slot
        new = self.take(tokens)
        self.copy(slot, [new], used)
        self.give_back(slot)
        return new

    @staticmethod
    def copy(source: Slot, targets: list[Slot], used: int) -> None:
        """Copy the first `used` entries of a row to other rows."""
        for layer, key in source.pool.keys.items():
            value = source.pool.values[layer]
            for target in targets:
                to_key, to_value = target.pool.layer(layer, key[:1])
                to_key[target.index, :, :used] = key[source.index, :, :used]
                to_value[target.index, :, :used] = value[source.index, :, :used]

    @property
    def tokens(self) -> int:
        """Tokens for which memory is held, over all pools."""
        return sum(pool.tokens for pool in self._pools.values())


class CachedPlan:
    """The engine's attention plan: append each piece to its row, attend over that row alone.

    Args:
        pieces: `(slot, start, tokens)`: the next `tokens` packed tokens belong to the row in `slot`, at position
            `start`.
    """

    def __init__(self, pieces: list[tuple[Slot, int, int]], device: torch.device) -> None:
        self._device = device
        self._single: list[tuple[Pool, Tensor, Tensor, Tensor]] = []
        self._runs: list[tuple[Pool, int, int, int, int]] = []
        self._prefill: list[tuple[Slot, int, int, int, Tensor | None]] = []
        offset = 0
        writes: dict[int, tuple[Pool, list[int], list[int], list[int]]] = {}
        for slot, start, tokens in pieces:
            if tokens == 1:
                _, slots, positions, places = writes.setdefault(id(slot.pool), (slot.pool, [], [], []))
                slots.append(slot.index)
                positions.append(start)
                places.append(offset)
                self._add_to_run(slot, start + 1, offset)
            else:
                mask = None
                if start:
                    mask = torch.ones(tokens, start + tokens, dtype=torch.bool, device=device).tril(start)
                self._prefill.append((slot, start, tokens, offset, mask))
            offset += tokens
        for pool, slots, positions, places in writes.values():
            index = [torch.tensor(numbers, device=device) for numbers in (slots, positions, places)]
            self._single.append((pool, index[0], index[1], index[2]))

    def _add_to_run(self, slot: Slot, length: int, offset: int) -> None:
        if self._runs:
            pool, first, count, run_length, run_offset = self._runs[-1]
            if (
                pool is slot.pool
                and slot.index == first + count
                and run_length == length
                and offset == run_offset + count
            ):
                self._runs[-1] = (pool, first, count + 1, length, run_offset)
                return
        self._runs.append((slot.pool, slot.index, 1, length, offset))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """See `AttentionPlan.attend`. Packed tokens that belong to no piece give zeros."""
        attention = torch.nn.functional.scaled_dot_product_attention
        _, heads, total, _ = query.shape
        output = query.new_zeros(total, heads, value.shape[-1])
        for pool, slots, positions, places in self._single:
            keys, values = pool.layer(layer, key)
            keys[slots, :, positions] = key[0].transpose(0, 1)[places]
            values[slots, :, positions] = value[0].transpose(0, 1)[places]
        for pool, first, count, length, offset in self._runs:
            keys, values = pool.layer(layer, key)
            start = max(0, length - window) if window else 0
            rows = slice(first, first + count)
            one = query[0, :, offset : offset + count].transpose(0, 1)[:, :, None]
            seen = attention(
                one, keys[rows, :, start:length], values[rows, :, start:length], scale=scale, enable_gqa=True
            )
            output[offset : offset + count] = seen[:, :, 0]
        for slot, start, tokens, offset, mask in self._prefill:
            keys, values = slot.pool.layer(layer, key)
            end = start + tokens
            piece = slice(offset, offset + tokens)
            keys[slot.index, :, start:end] = key[0, :, piece]
            values[slot.index, :, start:end] = value[0, :, piece]
            if window and end > window:
                ones = torch.ones(tokens, end, dtype=torch.bool, device=self._device)
                mask = ones.tril(start) & ones.triu(start - window + 1)
            seen = attention(
                query[:, :, piece],
                keys[slot.index, None, :, :end],
                values[slot.index, None, :, :end],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=True,
            )
            output[piece] = seen[0].transpose(0, 1)
        return output[None]
