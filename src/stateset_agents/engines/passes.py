"""Passes of a model over replies at work: prompts read, tokens put in, tokens drawn.

Invariant (see `local`): every pass has a fixed width, so that the last bits of a row's states don't depend on its
company. Nothing here knows of threads that wait, of sessions, or of who gets a token.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ModelError
from .cache import CachedPlan, Path, Slot
from .layout import WeightLayout
from .memory import RowMemory
from .packed import PackedModel
from .rows import PIECES, Row
from .sampling import choose, uniform
from .self_check import check_model

if TYPE_CHECKING:
    from ..models import LoadedModel

SMALL_MODEL = 500_000_000
"""Below this many parameters a pass over few tokens is too short to be worth waking a second thread (measured)."""


class Passes:
    """Used by one thread.

    Args:
        loaded: the model.
        memory: where rows have their slots.
        lanes: the width of a pass that continues replies.

    Attributes:
        packed: the model over packed tokens.
        layout: of its weights; forget it when they change.
        forwarded_tokens: real tokens that went through the model since the start (dummies not counted).

    Raises:
        ModelError: the model has no output head.
    """

    def __init__(self, loaded: LoadedModel, memory: RowMemory, lanes: int) -> None:
        self.packed = PackedModel(loaded.model)
        self.forwarded_tokens = 0
        self._memory = memory
        self._lanes = lanes
        self._read_threads = torch.get_num_threads()
        parameters = sum(p.numel() for p in loaded.model.parameters())
        self._step_threads = 1 if parameters < SMALL_MODEL else self._read_threads
        self.layout = WeightLayout(loaded.model if parameters < SMALL_MODEL else torch.nn.Identity())
        self._alone = self.packed.has_experts
        self._together = 1 if self._alone else lanes
        self._checked = False

    def begin(self) -> None:
        """Check the model before the first pass.

        Raises:
            ModelError: see `self_check`.
        """
        if not self._checked:
            self._use_threads(self._step_threads)
            check_model(self.packed)
            self._checked = True

    def _use_threads(self, count: int) -> None:
        """Set the number of torch's threads for this worker alone."""
        torch.set_num_threads(count)
        if count != self._read_threads:
            # What was set last, in whichever thread, is what a thread gets that comes to use torch later.
            other = threading.Thread(target=torch.set_num_threads, args=(self._read_threads,))
            other.start()
            other.join()

    def read_prompts(self, live: Callable[[], list[Row]]) -> None:
        """Compute prompt pieces in passes of fixed width until no row has a piece left that is read in one go.

        Args:
            live: the rows in the batch that somebody waits for, asked anew for each pass.
        """
        reading = _readers(live())
        if not reading:
            return
        self._use_threads(self._read_threads)
        try:
            while reading:
                for width, narrower in zip(PIECES, (0, *PIECES), strict=False):
                    fitting = [row for row in reading if narrower < row.piece <= width]
                    for batch in [[row] for row in fitting] if self._alone else _packed_into(fitting, width):
                        self._read(batch, width)
                for row in live():
                    if row.plan:
                        self._memory.fetch(row)
                reading = _readers(live())
        finally:
            self._use_threads(self._step_threads)

    def _read(self, rows: list[Row], width: int) -> None:
        pieces: list[tuple[Slot, int, int]] = []
        ids: list[int] = []
        positions: list[int] = []
        for row in rows:
            start, end = row.plan.popleft()
            pieces.append((row.held, start, end - start))
            ids.extend(row.request.prompt_ids[start:end])
            positions.extend(range(start, end))
            row.cached = end
            row.forwarded += end - start
        hidden = self._forward(pieces, ids, positions, width)
        last = -1
        for row, (_, _, tokens) in zip(rows, pieces, strict=True):
            last += tokens
            if not row.plan:
                row.hidden = hidden[last].clone()  # a view would keep the whole pass in memory
                self._memory.learn(row)

    def step(self, rows: list[Row]) -> None:
        """Continue replies by one token, in as many passes as it takes."""
        # Rows of equal length in neighbouring slots share one attention call.
        rows = sorted(rows, key=lambda row: (row.held.pool.capacity, row.cached, row.held.index))
        for block in range(0, len(rows), self._together):
            self._step(rows[block : block + self._together])

    def _step(self, rows: list[Row]) -> None:
        """Put one more token of each row through the model: the newest sampled one, or a replayed one."""
        ids: list[int] = []
        for row in rows:
            self._memory.grow(row, row.cached + 1)
            if row.plan:
                row.plan.popleft()
                ids.append(row.request.prompt_ids[row.cached])
            else:
                ids.append(row.ids[-1])
            row.cached += 1
            row.forwarded += 1
        positions = [row.cached - 1 for row in rows]
        pieces = [(row.held, position, 1) for row, position in zip(rows, positions, strict=True)]
        hidden = self._forward(pieces, ids, positions, self._together)
        for place, row in enumerate(rows):
            if not row.plan:
                row.hidden = hidden[place]

    def _forward(self, pieces: list[tuple[Slot, int, int]], ids: list[int], positions: list[int], width: int) -> Tensor:
        self.forwarded_tokens += len(ids)
        dummies = [0] * (width - len(ids))
        device = self.packed.device
        with self.layout:
            return self.packed.hidden(
                torch.tensor(ids + dummies, device=device),
                torch.tensor(positions + dummies, device=device),
                CachedPlan(pieces, device),
            )

    def sample(self, rows: list[Row]) -> list[tuple[int, float]]:
        """The next token of each row, and its log-prob.

        Args:
            rows: with a hidden state, at most as many as there are lanes.

        Raises:
            ModelError: the logits are not finite.
        """
        states = [row.hidden for row in rows if row.hidden is not None]
        filler = [torch.zeros_like(states[0])] * (self._lanes - len(states))
        with self.layout:  # left before a reply is delivered: who gets it may train the model at once
            logits = self.packed.head.logits(torch.stack(states + filler))[: len(rows)]
        params = [row.request.params for row in rows]
        ids, logprobs = choose(
            logits,
            params,
            [uniform(row.request.key, len(row.ids)) for row in rows],
            [
                (*row.request.prompt_ids, *row.ids) if one.repetition_penalty != 1.0 else ()
                for row, one in zip(rows, params, strict=True)
            ],
        )
        if not all(map(math.isfinite, logprobs)):
            raise ModelError("the model gives logits that are not finite: its weights or activations have overflowed")
        return list(zip(ids, logprobs, strict=True))


def _readers(live: list[Row]) -> list[Row]:
    """Rows whose next piece is read in one go. Of those with the same prompt the foremost reads for the others."""
    unread = [row for row in live if row.plan]
    leaders: dict[Path, Row] = {}
    for row in sorted(unread, key=lambda row: -row.cached):
        leaders.setdefault(row.path, row)
    return [row for row in unread if not row.replays and (row.cached or leaders[row.path] is row)]


def _packed_into(rows: list[Row], width: int) -> list[list[Row]]:
    """Rows shared out over as few passes as first fit, longest first, finds."""
    batches: list[list[Row]] = []
    rooms: list[int] = []
    for row in sorted(rows, key=lambda row: -row.piece):
        place = next((i for i, room in enumerate(rooms) if row.piece <= room), len(rooms))
        if place == len(rooms):
            batches.append([])
            rooms.append(width)
        batches[place].append(row)
        rooms[place] -= row.piece
    return batches
