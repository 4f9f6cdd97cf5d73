"""Keys and values of many rows: slots in pools of a few capacities.

Invariant: a row's first `length` entries are what its own tokens produced, in the order of its own path; nothing else
is ever read. Rows of one pool lie side by side, so that rows of equal length can share one attention call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

SMALLEST = 256
"""Capacity in tokens of the smallest pool; each next one is twice as large."""

Spans = tuple[tuple[int, int], ...]
"""Ranges `[start, end)` of a row that were sampled, in order."""

Path = tuple[tuple[int, ...], Spans]
"""Ids and the ranges of them that were sampled: together they name one cache content to the bit."""


class Pool:
    """Slots of one capacity. For each layer a key and a value tensor, (slots, kv_heads, capacity, head_dim)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.slots = 0
        self._free: list[int] = []

    @staticmethod
    def slots_for(rows: int) -> int:
        """Slots of a pool in which that many rows are at once: they are doubled as they run out."""
        slots = 8 if rows else 0
        while slots < rows:
            slots *= 2
        return slots

    def take(self) -> int:
        """A free slot, the lowest first, so that rows admitted together lie side by side."""
        if not self._free:
            grown = self.slots_for(self.slots + 1)
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

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value tensor of a layer, made on first use for keys and values like these, (1, kv_heads, T, dim)."""
        if index not in self.keys:
            for store, like in ((self.keys, key), (self.values, value)):
                store[index] = like.new_zeros(self.slots, like.shape[1], self.capacity, like.shape[3])
        return self.keys[index], self.values[index]

    @property
    def taken(self) -> int:
        """Tokens in slots that are not free."""
        return (self.slots - len(self._free)) * self.capacity


@dataclass(eq=False)
class Slot:
    """Where one row's keys and values are."""

    pool: Pool
    index: int
    prompts: list[Path] = field(default_factory=list)
    """Prompts of which the slot is known to hold all entries."""


class KeyValueCache:
    """All pools; hands out slots."""

    def __init__(self) -> None:
        self._pools: dict[int, Pool] = {}

    @staticmethod
    def capacity_for(tokens: int) -> int:
        """Capacity of the slot that a row of `tokens` gets."""
        capacity = SMALLEST
        while capacity < tokens:
            capacity *= 2
        return capacity

    def take(self, tokens: int) -> Slot:
        """A slot with room for `tokens`."""
        capacity = self.capacity_for(tokens)
        pool = self._pools.setdefault(capacity, Pool(capacity))
        return Slot(pool, pool.take())

    def give_back(self, slot: Slot) -> None:
        """Free a slot."""
        slot.pool.give_back(slot.index)

    @staticmethod
    def copy(source: Slot, target: Slot, used: int) -> None:
        """Copy the first `used` entries of a row to another row."""
        for layer, key in source.pool.keys.items():
            value = source.pool.values[layer]
            to_key, to_value = target.pool.layer(layer, key[:1], value[:1])
            to_key[target.index, :, :used] = key[source.index, :, :used]
            to_value[target.index, :, :used] = value[source.index, :, :used]

    @property
    def taken(self) -> int:
        """Tokens in slots that are not free, over all pools."""
        return sum(pool.taken for pool in list(self._pools.values()))


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
            keys, values = pool.layer(layer, key, value)
            keys[slots, :, positions] = key[0].transpose(0, 1)[places]
            values[slots, :, positions] = value[0].transpose(0, 1)[places]
        for pool, first, count, length, offset in self._runs:
            keys, values = pool.layer(layer, key, value)
            start = max(0, length - window) if window else 0
            rows = slice(first, first + count)
            one = query[0, :, offset : offset + count].transpose(0, 1)[:, :, None]
            seen = attention(
                one, keys[rows, :, start:length], values[rows, :, start:length], scale=scale, enable_gqa=True
            )
            output[offset : offset + count] = seen[:, :, 0]
        for slot, start, tokens, offset, mask in self._prefill:
            keys, values = slot.pool.layer(layer, key, value)
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
