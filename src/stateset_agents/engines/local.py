"""Generation inside this process: many conversations in flight, one batch, exact to the bit.

Invariant (see `base`): a reply depends only on its key, its own tokens and the weights. A linear layer's last bits
change with the number of rows in the call, so each forward pass has a fixed width and is filled up with dummies:
`lanes` tokens for passes that continue replies, 64 or 256 tokens for passes that read prompts. A prompt is cut into
pieces as a function of its own length. Sampled tokens are computed one at a time, on every path that leads to them.

A worker thread owns the cache and runs passes while there is work; callers wait on futures, so the event loop is free.
A prompt that several requests share is read once and its entries copied. A finished row leaves the batch at once; with
a session name its cache stays for the next turn, until `release` or until memory is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ModelError
from ..core.outcome import StopReason
from .base import GeneratedToken, Generation, GenerationRequest
from .cache import CachedPlan, KeyValueCache, Slot
from .packed import PackedModel
from .sampling import choose, uniform

if TYPE_CHECKING:
    from ..models import LoadedModel

PIECES = (64, 256)
"""Widths in tokens of the passes that read prompts."""

SMALL_MODEL = 500_000_000
"""Below this many parameters a pass over few tokens is too short to be worth waking a second thread (measured)."""

Path = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""Ids and the ranges of them that were computed one at a time: together they name one cache content to the bit."""


@dataclass
class _Row:
    """One request on its way."""

    request: GenerationRequest
    deliver: Callable[[int, float, Generation | None, BaseException | None], None]
    slot: Slot | None = None
    cached: int = 0
    """Tokens of the row whose keys and values are in the slot."""
    forwarded: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    hidden: Tensor | None = None
    """Last hidden state of the newest computed token, when the next token can be sampled from it."""
    plan: deque[tuple[int, int]] = field(default_factory=deque)
    """Pieces `[start, end)` of the prompt that are still to be computed."""
    cancelled: bool = False

    @property
    def tokens(self) -> int:
        return len(self.request.prompt_ids) + len(self.ids)


@dataclass
class _Session:
    """A kept cache: `slot` holds the first `cached` tokens of the path."""

    slot: Slot
    path: Path
    cached: int


def _stepwise(spans: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Ranges computed one token at a time: a reply's tokens but its last, which goes with what follows it."""
    return [(start, end - 1) for start, end in spans]


def pieces_of(begin: int, end: int, spans: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """How the tokens `[begin, end)` of a row are computed; `begin` must be the border of a piece.

    Args:
        begin, end: range of tokens to compute.
        spans: ranges of the row that were sampled.

    Returns:
        Ranges in order; those inside a sampled span hold one token, the others at most 256.
    """
    pieces: list[tuple[int, int]] = []
    position = begin
    for start, stop in [*_stepwise(spans), (end, end)]:
        while position < min(start, end):
            width = min(PIECES[-1], start - position, end - position)
            pieces.append((position, position + width))
            position += width
        while position < min(stop, end):
            pieces.append((position, position + 1))
            position += 1
    return pieces


class LocalEngine:
    """Engine over a model in this process.

    Args:
        loaded: the model; training may change its weights between two calls (then call `weights_changed`).
        lanes: replies continued in one pass. More replies are continued in several passes.
        max_cached_tokens: memory bound for kept sessions; the longest unused are forgotten first. A forgotten cache
            costs time, never a bit.

    Raises:
        ModelError: the architecture can't be driven over packed tokens.
    """

    def __init__(self, loaded: LoadedModel, *, lanes: int = 16, max_cached_tokens: int = 1_000_000) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be >= 1, not {lanes}")
        self.version = 0
        self.max_context = loaded.max_context
        self.forwarded_tokens = 0
        """Real tokens that went through the model since the start (dummies not counted)."""
        self._lanes = lanes
        self._read_threads = torch.get_num_threads()
        parameters = sum(p.numel() for p in loaded.model.parameters())
        self._step_threads = 1 if parameters < SMALL_MODEL else self._read_threads
        self._max_cached_tokens = max_cached_tokens
        self._packed = PackedModel(loaded.model)
        self._cache = KeyValueCache()
        self._waiting: deque[_Row] = deque()
        self._active: list[_Row] = []
        self._sessions: dict[str, _Session] = {}
        self._prompts: dict[Path, tuple[Slot, Tensor]] = {}
        self._forget: deque[str] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._checked = False

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`.

        Raises:
            ModelError: the prompt is empty or longer than the context, holds ids outside the vocabulary, or the engine
                is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Generation] = loop.create_future()

        def settle(final: Generation | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            elif final is not None:
                future.set_result(final)

        def deliver(token: int, logprob: float, final: Generation | None, error: BaseException | None) -> None:
            if final is not None or error is not None:
                with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                    loop.call_soon_threadsafe(settle, final, error)

        row = self._submit(request, deliver)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(row)
            raise

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GeneratedToken]:
        """See `Engine.stream`. Closing the iterator frees the place in the batch."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[GeneratedToken | BaseException] = asyncio.Queue()

        def deliver(token: int, logprob: float, final: Generation | None, error: BaseException | None) -> None:
            item = error if error is not None else GeneratedToken(token, logprob, final)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, item)

        row = self._submit(request, deliver)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.final is not None:
                    return
        finally:
            self._cancel(row)

    def release(self, session: str) -> None:
        """Forget the kept cache of a session."""
        with self._wake:
            self._forget.append(session)
            self._wake.notify()

    def weights_changed(self, version: int) -> None:
        """Announce new weights: kept caches were computed under the old ones and are dropped.

        Raises:
            RuntimeError: replies are in flight; they would mix two policies.
        """
        with self._wake:
            if self._waiting or self._active:
                raise RuntimeError("the weights must not change while replies are being generated")
            self._forget.clear()
            for name in list(self._sessions):
                self._drop(name)
            self.version = version

    async def aclose(self) -> None:
        """Stop the worker and free memory."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _submit(
        self,
        request: GenerationRequest,
        deliver: Callable[[int, float, Generation | None, BaseException | None], None],
    ) -> _Row:
        ids, limit = request.prompt_ids, self._packed.vocabulary
        if not ids:
            raise ModelError("a prompt must hold at least one token")
        if len(ids) >= self.max_context:
            raise ModelError(f"the prompt has {len(ids)} tokens, but the model's context is {self.max_context}")
        if min(ids) < 0 or max(ids) >= limit:
            raise ModelError(f"the prompt holds a token id outside the vocabulary of {limit}")
        row = _Row(request, deliver)
        with self._wake:
            if self._closed:
                raise ModelError("the engine is closed")
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="local-engine", daemon=True)
                self._thread.start()
            self._wake.notify()
        return row

    def _cancel(self, row: _Row) -> None:
        with self._wake:
            row.cancelled = True
            self._wake.notify()

    def _work(self) -> None:
        torch.set_num_threads(self._step_threads)  # of this worker thread alone
        with torch.inference_mode():
            while True:
                with self._wake:
                    while not (self._waiting or self._active or self._forget or self._closed):
                        self._wake.wait()
                    if self._closed:
                        self._stop()
                        return
                    try:
                        self._admit()
                    except Exception as error:
                        self._fail(error)
                try:
                    self._advance()
                except Exception as error:
                    with self._wake:
                        self._fail(error)

    def _stop(self) -> None:
        for row in [*self._active, *self._waiting]:
            row.deliver(0, 0.0, None, asyncio.CancelledError("the engine was closed"))
        self._active.clear()
        self._waiting.clear()
        self._sessions.clear()
        self._prompts.clear()
        self._cache = KeyValueCache()

    def _fail(self, error: Exception) -> None:
        """A pass failed: every row of it gets the error, the engine stays usable."""
        for row in [*self._active, *self._waiting]:
            row.deliver(0, 0.0, None, error)
        self._active.clear()
        self._waiting.clear()
        self._sessions.clear()
        self._prompts.clear()
        self._cache = KeyValueCache()

    def _admit(self) -> None:
        while self._forget:
            self._drop(self._forget.popleft())
        for row in [row for row in self._active if row.cancelled]:
            self._active.remove(row)
            self._free(row)
        while self._waiting:
            row = self._waiting.popleft()
            if not row.cancelled:
                self._place(row)
                self._active.append(row)

    def _place(self, row: _Row) -> None:
        """Give the row a slot, with as much of its prompt as is computed already."""
        prompt, spans = row.request.prompt_ids, row.request.sampled_spans
        kept = self._sessions.pop(row.request.session, None) if row.request.session else None
        if kept is not None:
            if _begins_with((prompt, spans), kept) and kept.cached < len(prompt):
                row.slot, row.cached = kept.slot, kept.cached
                row.slot = self._grow(row, len(prompt) + 1)
            else:
                self._give_back(kept.slot)
        if row.slot is None:
            self._evict()
            row.slot = self._cache.take(len(prompt) + 1)
            shared = self._prompts.get((prompt, spans))
            if shared is not None:
                source, row.hidden = shared
                self._cache.copy(source, [row.slot], len(prompt))
                row.cached = len(prompt)
        row.plan.extend(pieces_of(row.cached, len(prompt), spans))

    def _evict(self) -> None:
        while self._sessions and self._cache.tokens > self._max_cached_tokens:
            self._drop(next(iter(self._sessions)))

    def _drop(self, name: str) -> None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            self._give_back(kept.slot)

    def _give_back(self, slot: Slot) -> None:
        for path in [path for path, (source, _) in self._prompts.items() if source is slot]:
            del self._prompts[path]
        self._cache.give_back(slot)

    def _free(self, row: _Row) -> None:
        if row.slot is not None:
            self._give_back(row.slot)
            row.slot = None

    def _advance(self) -> None:
        """One round: read prompts that wait, sample where a hidden state is ready, continue replies by one token."""
        if not self._checked:
            self._self_check()
        self._read_prompts()
        ready = [row for row in self._active if row.hidden is not None]
        for block in range(0, len(ready), self._lanes):
            self._sample(ready[block : block + self._lanes])
        stepping = [row for row in self._active if row.hidden is None]
        stepping.sort(key=lambda row: (id(row.slot.pool), row.cached, row.slot.index) if row.slot else (0, 0, 0))
        for block in range(0, len(stepping), self._lanes):
            self._step(stepping[block : block + self._lanes])

    def _self_check(self) -> None:
        ids = torch.arange(8, device=self._packed.device) % self._packed.vocabulary
        slot = self._cache.take(8)
        try:
            self._packed.check(CachedPlan([(slot, 0, 8)], self._packed.device), ids)
        finally:
            self._cache.give_back(slot)
        self._checked = True

    def _next_piece(self, row: _Row) -> int:
        """Length of the row's next prompt piece, 0 if it has none or if the piece is a single replayed token."""
        if not row.plan:
            return 0
        start, end = row.plan[0]
        return end - start

    def _read_prompts(self) -> None:
        """Compute prompt pieces in passes of fixed width until no row has a piece left that is read in one go."""
        while True:
            reading = [row for row in self._active if row.plan and not self._replays(row)]
            readers: dict[Path, _Row] = {}
            for row in sorted(reading, key=lambda row: -row.cached):
                path = (row.request.prompt_ids, row.request.sampled_spans)
                if readers.setdefault(path, row) is not row and row.cached == 0:
                    reading.remove(row)  # waits for the row that reads the same prompt
            if not reading:
                return
            for width, narrower in zip(PIECES, (0, *PIECES), strict=False):
                batch: list[_Row] = []
                room = width
                for row in [row for row in reading if narrower < self._next_piece(row) <= width]:
                    if self._next_piece(row) > room:
                        self._read(batch, width)
                        batch, room = [], width
                    batch.append(row)
                    room -= self._next_piece(row)
                if batch:
                    self._read(batch, width)
            self._share_prompts()

    @staticmethod
    def _replays(row: _Row) -> bool:
        """Whether the row's next prompt token lies inside a sampled span and is replayed as a single step."""
        start = row.plan[0][0]
        return any(begin <= start < end for begin, end in _stepwise(row.request.sampled_spans))

    def _read(self, rows: list[_Row], width: int) -> None:
        pieces: list[tuple[Slot, int, int]] = []
        ids: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        for row in rows:
            start, end = row.plan.popleft()
            assert row.slot is not None  # noqa: S101 - a row in the batch has a slot by construction
            pieces.append((row.slot, start, end - start))
            ids.extend(row.request.prompt_ids[start:end])
            positions.extend(range(start, end))
            ends.append(len(ids) - 1)
            row.cached = end
            row.forwarded += end - start
        torch.set_num_threads(self._read_threads)
        hidden = self._forward(pieces, ids, positions, width)
        torch.set_num_threads(self._step_threads)
        for row, end in zip(rows, ends, strict=True):
            if not row.plan:
                row.hidden = hidden[end]

    def _share_prompts(self) -> None:
        """Give a prompt that was just read to the rows that wait for it, and to those that come later."""
        for row in self._active:
            path = (row.request.prompt_ids, row.request.sampled_spans)
            if row.hidden is not None and not row.ids and path not in self._prompts and row.slot is not None:
                self._prompts[path] = (row.slot, row.hidden)
        for row in self._active:
            shared = self._prompts.get((row.request.prompt_ids, row.request.sampled_spans))
            if shared is not None and row.cached == 0 and row.plan and row.slot is not None:
                source, row.hidden = shared
                self._cache.copy(source, [row.slot], len(row.request.prompt_ids))
                row.cached = len(row.request.prompt_ids)
                row.plan.clear()

    def _step(self, rows: list[_Row]) -> None:
        """Put one more token of each row through the model: the newest sampled one, or a replayed one."""
        pieces: list[tuple[Slot, int, int]] = []
        ids: list[int] = []
        positions: list[int] = []
        for row in rows:
            assert row.slot is not None  # noqa: S101 - a row in the batch has a slot by construction
            position = row.cached
            if row.plan:
                row.plan.popleft()
                ids.append(row.request.prompt_ids[position])
            else:
                ids.append(row.ids[-1])
            row.slot = self._grow(row, position + 1)
            pieces.append((row.slot, position, 1))
            positions.append(position)
            row.cached += 1
            row.forwarded += 1
        hidden = self._forward(pieces, ids, positions, self._lanes)
        for place, row in enumerate(rows):
            if not row.plan:
                row.hidden = hidden[place]

    def _grow(self, row: _Row, tokens: int) -> Slot:
        assert row.slot is not None  # noqa: S101 - a row in the batch has a slot by construction
        new = self._cache.grow(row.slot, tokens, row.cached)
        if new is not row.slot:
            for path in [path for path, (source, _) in self._prompts.items() if source is row.slot]:
                self._prompts[path] = (new, self._prompts[path][1])
        return new

    def _forward(self, pieces: list[tuple[Slot, int, int]], ids: list[int], positions: list[int], width: int) -> Tensor:
        self.forwarded_tokens += len(ids)
        dummies = [0] * (width - len(ids))
        device = self._packed.device
        return self._packed.hidden(
            torch.tensor(ids + dummies, device=device),
            torch.tensor(positions + dummies, device=device),
            CachedPlan(pieces, device),
        )

    def _sample(self, rows: list[_Row]) -> None:
        states = [row.hidden for row in rows if row.hidden is not None]
        filler = [torch.zeros_like(states[0])] * (self._lanes - len(states))
        logits = self._packed.head.logits(torch.stack(states + filler))[: len(rows)]
        ids, logprobs = choose(
            logits,
            [row.request.params for row in rows],
            [uniform(row.request.key, len(row.ids)) for row in rows],
            [[*row.request.prompt_ids, *row.ids] for row in rows],
        )
        for row, token, logprob in zip(rows, ids, logprobs, strict=True):
            row.hidden = None
            row.ids.append(token)
            row.logprobs.append(logprob)
            reason = self._reason_to_stop(row)
            row.deliver(token, logprob, self._finish(row, reason) if reason else None, None)

    def _reason_to_stop(self, row: _Row) -> StopReason | None:
        params = row.request.params
        if row.ids[-1] in params.stop_ids:
            return StopReason.STOP
        if len(row.ids) >= params.max_new_tokens:
            return StopReason.LENGTH
        if row.tokens >= self.max_context:
            return StopReason.CONTEXT
        return None

    def _finish(self, row: _Row, reason: StopReason) -> Generation:
        with self._wake:
            self._active.remove(row)
            request = row.request
            if request.session is not None and row.slot is not None and not row.cancelled:
                self._drop(request.session)
                begin = len(request.prompt_ids)
                path = (
                    (*request.prompt_ids, *row.ids),
                    (*request.sampled_spans, (begin, begin + len(row.ids))),
                )
                self._sessions[request.session] = _Session(row.slot, path, row.cached)
            else:
                self._free(row)
        return Generation(tuple(row.ids), tuple(row.logprobs), reason, self.version, row.forwarded)


def _begins_with(path: Path, kept: _Session) -> bool:
    """Whether what a session keeps is, token by token and step by step, the beginning of a row."""
    ids, spans = path
    kept_ids, kept_spans = kept.path
    return (
        ids[: len(kept_ids)] == kept_ids
        and spans[: len(kept_spans)] == kept_spans
        and all(start >= len(kept_ids) for start, _ in spans[len(kept_spans) :])
    )
