"""Generation inside this process: many conversations in flight, one batch, exact to the bit.

Invariant (see `base`): a reply depends only on its key, its own tokens and the weights. A linear layer's last bits
change with the number of rows in the call, so each forward pass has a fixed width and is filled up with dummies:
`lanes` tokens for passes that continue replies, 64 or 256 tokens for passes that read prompts. A prompt is cut into
pieces as a function of its own length. Sampled tokens are computed one at a time, on every path that leads to them.
In a mixture of experts the number of rows in an expert's call follows from every token of the pass, so there each pass
is for one row alone.

A worker thread owns the cache and runs passes while there is work; callers wait on futures, so the event loop is free.
It ends when the engine is closed, or when nobody holds the engine any more.
A prompt that several requests share is read once and its entries copied. A finished row leaves the batch at once; with
a session name its cache stays for the next turn, until `release` or until memory is needed. When memory runs out, the
replies under way begin again, half as many at once from then on; they come out the same, only later.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import ModelError, first_line, is_out_of_memory
from ..core.outcome import StopReason
from ..models.allocation import keep_freed_memory
from .base import GeneratedToken, Generation, GenerationRequest
from .cache import CachedPlan, Path, Slot
from .layout import WeightLayout
from .memory import RowMemory
from .packed import PackedModel
from .rows import PIECES, Item, Row
from .sampling import choose, uniform
from .self_check import check_model

if TYPE_CHECKING:
    from ..models import LoadedModel

log = logging.getLogger(__name__)

SMALL_MODEL = 500_000_000
"""Below this many parameters a pass over few tokens is too short to be worth waking a second thread (measured)."""


class LocalEngine:
    """Engine over a model in this process.

    Args:
        loaded: the model; training may change its weights between two calls (then call `weights_changed`).
        lanes: replies continued in one pass, and its width: another number gives other last bits. More replies than
            that are continued in several passes.
        max_cached_tokens: memory bound for kept sessions and rows at work together. Beyond it the sessions that were
            not used for longest are forgotten; rows at work are never refused. A forgotten cache costs time, never a
            bit.

    The first reply is preceded by a check of the model (see `self_check`); one that does not pass fails each request.

    Raises:
        ModelError: the model has no output head.
    """

    def __init__(self, loaded: LoadedModel, *, lanes: int = 32, max_cached_tokens: int = 1_000_000) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be >= 1, not {lanes}")
        keep_freed_memory()
        self.version = 0
        self.max_context = loaded.max_context
        self.forwarded_tokens = 0
        """Real tokens that went through the model since the start (dummies not counted)."""
        self._lanes = lanes
        self._read_threads = torch.get_num_threads()
        parameters = sum(p.numel() for p in loaded.model.parameters())
        self._step_threads = 1 if parameters < SMALL_MODEL else self._read_threads
        self._model = loaded.model
        self._packed = PackedModel(loaded.model)
        self._layout = WeightLayout(loaded.model if parameters < SMALL_MODEL else torch.nn.Identity())
        self._alone = self._packed.has_experts
        self._together = 1 if self._alone else lanes
        self._memory = RowMemory(max_cached_tokens)
        self._waiting: deque[Row] = deque()
        self._active: list[Row] = []
        self._forget: deque[str] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._release: weakref.finalize[..., LocalEngine] | None = None
        self._closed = False
        self._checked = False
        self._most_active: int | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens for which cache slots are taken, by rows at work and kept sessions."""
        return self._memory.tokens

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`.

        Raises:
            ModelError: the prompt is empty or longer than the context, or holds ids outside the vocabulary; the spans
                are not ranges of the prompt in order; the model does not fit this engine, is in training mode or gives
                logits that are not finite; or the engine is closed.
        """
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()

        def settle(item: Item) -> None:
            if future.done():
                return
            if isinstance(item, BaseException):
                future.set_exception(item)
            elif item.final is not None:
                future.set_result(item.final)

        row = self._submit(request, settle, streamed=False)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(row)
            raise

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GeneratedToken]:
        """See `Engine.stream`. Closing the iterator frees the place in the batch."""
        queue: asyncio.Queue[Item] = asyncio.Queue()
        row = self._submit(request, queue.put_nowait, streamed=True)
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
        """Forget the kept cache of a session; a reply of it that is under way is finished, but not kept."""
        with self._wake:
            for row in (*self._active, *self._waiting):
                if row.request.session == session:
                    row.keep = False
            self._forget.append(session)
            self._wake.notify_all()

    def weights_changed(self, version: int) -> None:
        """Announce new weights: kept caches were computed under the old ones and are dropped.

        Waits for the pass that is under way when replies were cancelled just before.

        Raises:
            RuntimeError: replies are in flight; they would mix two policies.
        """
        with self._wake:
            if any(not row.cancelled for row in (*self._active, *self._waiting)):
                raise RuntimeError("the weights must not change while replies are being generated")
            self._wake.wait_for(lambda: not self._active and not self._waiting)
            self._forget.clear()
            self._memory.forget_all()
            self._layout.forget()
            self.version = version

    async def aclose(self) -> None:
        """Stop the worker and free memory. Requests under way are cancelled."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Let the worker finish the pass that it is in, and wait for that."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._release is not None:
            self._release()

    def _submit(self, request: GenerationRequest, deliver: Callable[[Item], None], *, streamed: bool) -> Row:
        self._validate(request)
        row = Row(request, asyncio.get_running_loop(), deliver, streamed)
        with self._wake:
            if self._closed:
                raise ModelError("the engine is closed")
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_work,
                    args=(weakref.WeakMethod(self._turn), weakref.WeakMethod(self._idle), self._wake),
                    name="local-engine",
                    daemon=True,
                )
                self._thread.start()
                # A thread inside torch when the interpreter goes down aborts the process and takes its exit code along.
                at_exit = partial(_at_exit, weakref.WeakMethod(self._end))
                atexit.register(at_exit)
                self._release = weakref.finalize(self, _release, self._wake, at_exit)
                self._release.atexit = False
            self._wake.notify_all()
        return row

    def _validate(self, request: GenerationRequest) -> None:
        ids, limit = request.prompt_ids, self._packed.vocabulary
        if not ids:
            raise ModelError("a prompt must hold at least one token")
        if len(ids) >= self.max_context:
            raise ModelError(f"the prompt has {len(ids)} tokens, but the model's context is {self.max_context}")
        if min(ids) < 0 or max(ids) >= limit:
            raise ModelError(f"the prompt holds a token id outside the vocabulary of {limit}")
        end = 0
        for start, stop in request.sampled_spans:
            if not end <= start < stop <= len(ids):
                raise ModelError(
                    f"sampled_spans {request.sampled_spans} are not ranges in order in a prompt of {len(ids)} tokens"
                )
            end = stop
        if self._model.training:
            raise ModelError("the model is in training mode, where dropout would change replies: call model.eval()")

    def _cancel(self, row: Row) -> None:
        with self._wake:
            row.cancelled = True
            self._wake.notify_all()

    def _idle(self) -> bool:
        return not (self._waiting or self._active or self._forget or self._closed)

    def _turn(self) -> bool:
        """Admit what waits, and put it through the model once; False if the engine is closed."""
        with self._wake:
            if self._closed:
                self._end_active(asyncio.CancelledError("the engine was closed"), [*self._waiting])
                self._waiting.clear()
                return False
            try:
                self._admit()
            except Exception as error:
                self._fail(error)
        try:
            self._advance()
        except Exception as error:
            with self._wake:
                self._fail(error)
        return True

    def _use_threads(self, count: int) -> None:
        """Set the number of torch's threads for this worker alone."""
        torch.set_num_threads(count)
        if count != self._read_threads:
            # What was set last, in whichever thread, is what a thread gets that comes to use torch later.
            other = threading.Thread(target=torch.set_num_threads, args=(self._read_threads,))
            other.start()
            other.join()

    def _fail(self, error: Exception) -> None:
        """Begin again with fewer rows where memory ran out; else give the error to every row."""
        live = self._live
        if not is_out_of_memory(error) or (len(live) < 2 and not self._memory.keeps):
            self._end_active(error)
            return
        self._most_active = max(1, len(live) // 2)
        self._memory.keep_half()
        log.warning(
            "memory ran out with %d replies under way (%s): they begin again, and from here on there are at most %d",
            len(live),
            first_line(error),
            self._most_active,
        )
        for row in live:
            row.begin_again()
        self._active.clear()
        self._memory.clear()
        self._waiting.extendleft(reversed(live))
        self._wake.notify_all()

    def _end_active(self, error: BaseException, others: Sequence[Row] = ()) -> None:
        """Give the error to every row in the batch. The cache may be half written, so it goes; the engine stays."""
        rows = [*self._active, *others]
        self._active.clear()
        self._memory.clear()
        self._wake.notify_all()
        _deliver([(row, error) for row in rows])

    def _admit(self) -> None:
        while self._forget:
            self._memory.forget(self._forget.popleft())
        for row in [row for row in self._active if row.cancelled]:
            self._active.remove(row)
            self._memory.free(row)
        while self._waiting and (self._most_active is None or len(self._active) < self._most_active):
            row = self._waiting.popleft()
            if not row.cancelled:
                self._active.append(row)
                self._memory.place(row)
        self._wake.notify_all()

    def _advance(self) -> None:
        """One round: read prompts that wait, sample where a hidden state is ready, continue replies by one token."""
        if not self._active:
            return
        if not self._checked:
            self._use_threads(self._step_threads)
            check_model(self._packed)
            self._checked = True
        self._read_prompts()
        ready = [row for row in self._live if row.hidden is not None]
        for block in range(0, len(ready), self._lanes):
            self._sample(ready[block : block + self._lanes])
        stepping = [row for row in self._live if row.hidden is None and (row.replays or not row.plan)]
        # Rows of equal length in neighbouring slots share one attention call.
        stepping.sort(key=lambda row: (row.held.pool.capacity, row.cached, row.held.index))
        for block in range(0, len(stepping), self._together):
            self._step(stepping[block : block + self._together])

    def _read_prompts(self) -> None:
        """Compute prompt pieces in passes of fixed width until no row has a piece left that is read in one go."""
        reading = self._readers()
        if not reading:
            return
        self._use_threads(self._read_threads)
        try:
            while reading:
                for width, narrower in zip(PIECES, (0, *PIECES), strict=False):
                    fitting = [row for row in reading if narrower < row.piece <= width]
                    for batch in [[row] for row in fitting] if self._alone else _packed_into(fitting, width):
                        self._read(batch, width)
                for row in self._live:
                    if row.plan:
                        self._memory.fetch(row)
                reading = self._readers()
        finally:
            self._use_threads(self._step_threads)

    @property
    def _live(self) -> list[Row]:
        """Rows in the batch that somebody waits for."""
        return [row for row in self._active if not row.cancelled]

    def _readers(self) -> list[Row]:
        """Rows whose next piece is read in one go. Of those with the same prompt the foremost reads for the others."""
        unread = [row for row in self._live if row.plan]
        leaders: dict[Path, Row] = {}
        for row in sorted(unread, key=lambda row: -row.cached):
            leaders.setdefault(row.path, row)
        return [row for row in unread if not row.replays and (row.cached or leaders[row.path] is row)]

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
        device = self._packed.device
        with self._layout:
            return self._packed.hidden(
                torch.tensor(ids + dummies, device=device),
                torch.tensor(positions + dummies, device=device),
                CachedPlan(pieces, device),
            )

    def _sample(self, rows: list[Row]) -> None:
        states = [row.hidden for row in rows if row.hidden is not None]
        filler = [torch.zeros_like(states[0])] * (self._lanes - len(states))
        with self._layout:  # left before a reply is delivered: who gets it may train the model at once
            logits = self._packed.head.logits(torch.stack(states + filler))[: len(rows)]
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
        items: list[tuple[Row, Item]] = []
        for row, token, logprob in zip(rows, ids, logprobs, strict=True):
            row.hidden = None
            row.ids.append(token)
            row.logprobs.append(logprob)
            reason = self._reason_to_stop(row)
            final = self._finish(row, reason) if reason else None
            new = len(row.ids) > row.delivered
            row.delivered += new
            if new and (final is not None or row.streamed):
                items.append((row, GeneratedToken(token, logprob, final)))
        _deliver(items)

    def _reason_to_stop(self, row: Row) -> StopReason | None:
        params = row.request.params
        if row.ids[-1] in params.stop_ids:
            return StopReason.STOP
        if len(row.ids) >= params.max_new_tokens:
            return StopReason.LENGTH
        if row.tokens >= self.max_context:
            return StopReason.CONTEXT
        return None

    def _finish(self, row: Row, reason: StopReason) -> Generation:
        with self._wake:
            self._active.remove(row)
            if row.cancelled:
                self._memory.free(row)
            else:
                self._memory.keep(row)
            self._wake.notify_all()
            return Generation(tuple(row.ids), tuple(row.logprobs), reason, self.version, row.forwarded)


def _work(
    turn_of: weakref.WeakMethod[Callable[[], bool]],
    idle_of: weakref.WeakMethod[Callable[[], bool]],
    wake: threading.Condition,
) -> None:
    """Have an engine work whenever there is something to do, until it is closed or nobody has it any more.

    While there is nothing to do this thread does not hold it: an engine that was dropped goes, and its model with it.
    """
    with torch.inference_mode():
        while True:
            with wake:
                idle = idle_of()
                waits = idle is not None and idle()
                del idle
                if waits:
                    if idle_of() is not None:  # that was not the last one that held it
                        wake.wait()
                    continue
            turn = turn_of()
            if turn is None or not turn():
                return
            del turn


def _release(wake: threading.Condition, at_exit: Callable[[], None]) -> None:
    """What is left to do when an engine is closed or gone."""
    atexit.unregister(at_exit)
    with wake:
        wake.notify_all()


def _at_exit(end_of: weakref.WeakMethod[Callable[[], None]]) -> None:
    end = end_of()
    if end is not None:
        end()


def _deliver(items: Sequence[tuple[Row, Item]]) -> None:
    """Hand tokens or errors to those who wait for them; each event loop is woken once, which is a system call."""
    for loop in {row.loop for row, _ in items}:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(_hand_over, [(row, item) for row, item in items if row.loop is loop])


def _hand_over(items: Sequence[tuple[Row, Item]]) -> None:
    for row, item in items:
        row.deliver(item)


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
