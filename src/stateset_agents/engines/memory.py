"""What is computed already: prompts that requests share, and rows that sessions keep for their next turn.

Invariant: whatever is taken from here is what the row would have computed by itself, to the bit, because it is found by
`Path`. Forgetting something costs time, never a bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .cache import KeyValueCache, Path, Slot
from .rows import Row, begins_with, pieces_of


@dataclass
class _Prompt:
    """A prompt that was read: the rows that hold its entries, and the hidden state of its last token."""

    slots: list[Slot]
    hidden: Tensor


@dataclass
class _Kept:
    """A row that a session keeps: `slot` holds the first `cached` tokens of the path."""

    slot: Slot
    path: Path
    cached: int


class RowMemory:
    """Slots of the rows at work and of kept sessions. One thread at a time.

    Args:
        max_tokens: when more would be taken, the sessions that were not used for longest are forgotten.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._cache = KeyValueCache()
        self._kept: dict[str, _Kept] = {}
        self._prompts: dict[Path, _Prompt] = {}

    @property
    def tokens(self) -> int:
        """Tokens for which slots are taken, by rows at work and kept sessions."""
        return self._cache.taken

    @property
    def keeps(self) -> bool:
        """Whether there is a session that could be forgotten."""
        return bool(self._kept)

    def keep_half(self) -> None:
        """From here on keep half as much as there is: more was too much."""
        self._max_tokens = min(self._max_tokens, self.tokens // 2)

    def place(self, row: Row) -> None:
        """Give the row a slot, with as much of its prompt as is computed already, and plan the rest."""
        prompt, spans = row.path
        kept = self._kept.pop(row.request.session, None) if row.request.session is not None else None
        if kept is not None and begins_with(row.path, kept.path):
            row.slot, row.cached = kept.slot, kept.cached
            self.grow(row, len(prompt) + 1)
        else:
            if kept is not None:
                self._give_back(kept.slot)
            row.slot = self._take(len(prompt) + 1)
        row.plan.extend(pieces_of(row.cached, len(prompt), spans))
        self.fetch(row)

    def grow(self, row: Row, tokens: int) -> None:
        """Make room for `tokens` of the row, maybe in another slot."""
        old = row.held
        if tokens <= old.pool.capacity:
            return
        row.slot = self._take(tokens)
        self._cache.copy(old, row.slot, row.cached)
        for path in old.prompts:
            slots = self._prompts[path].slots
            slots[slots.index(old)] = row.slot
        row.slot.prompts, old.prompts = old.prompts, []
        self._cache.give_back(old)

    def learn(self, row: Row) -> None:
        """Note that the row's prompt was read to its end, for others that begin with the same one."""
        if row.hidden is not None:
            prompt = self._prompts.setdefault(row.path, _Prompt([], row.hidden))
            prompt.slots.append(row.held)
            row.held.prompts.append(row.path)

    def fetch(self, row: Row) -> bool:
        """Take the whole prompt from a row that has read it. Returns whether there was one."""
        prompt = self._prompts.get(row.path) if row.cached == 0 else None
        if prompt is None:
            return False
        row.cached, row.hidden = len(row.request.prompt_ids), prompt.hidden
        row.plan.clear()
        self._cache.copy(prompt.slots[0], row.held, row.cached)
        self.learn(row)
        return True

    def keep(self, row: Row) -> None:
        """Put a finished row away, for its session's next turn if it has one."""
        session = row.request.session
        if session is None or not row.keep:
            self.free(row)
            return
        self.forget(session)
        self._kept[session] = _Kept(row.held, row.path_with_reply, row.cached)
        row.slot = None

    def free(self, row: Row) -> None:
        """Put away a row of which nothing is kept."""
        if row.slot is not None:
            self._give_back(row.slot)
            row.slot = None

    def forget(self, session: str) -> None:
        """Give back what a session keeps, if anything."""
        kept = self._kept.pop(session, None)
        if kept is not None:
            self._give_back(kept.slot)

    def forget_all(self) -> None:
        """Give back what any session keeps."""
        for session in list(self._kept):
            self.forget(session)

    def clear(self) -> None:
        """Drop everything, the rows at work too."""
        self._kept.clear()
        self._prompts.clear()
        self._cache = KeyValueCache()

    def _take(self, tokens: int) -> Slot:
        capacity = self._cache.capacity_for(tokens)
        while self._kept and self._cache.taken + capacity > self._max_tokens:
            self.forget(next(iter(self._kept)))
        return self._cache.take(tokens)

    def _give_back(self, slot: Slot) -> None:
        for path in slot.prompts:
            prompt = self._prompts[path]
            prompt.slots.remove(slot)
            if not prompt.slots:
                del self._prompts[path]
        slot.prompts.clear()
        self._cache.give_back(slot)
