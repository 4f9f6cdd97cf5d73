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
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from ..core.errors import ModelError, first_line, is_out_of_memory
from ..core.outcome import StopReason
from ..models.allocation import keep_freed_memory
from .base import GeneratedToken, Generation, GenerationRequest
from .memory import RowMemory
from .passes import Passes
from .rows import Item, Row
from .worker import Worker

if TYPE_CHECKING:
    from ..models import LoadedModel

log = logging.getLogger(__name__)


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
        self._lanes = lanes
        self._model = loaded.model
        self._memory = RowMemory(max_cached_tokens)
        self._passes = Passes(loaded, self._memory, lanes)
        self._waiting: deque[Row] = deque()
        self._active: list[Row] = []
        self._forget: deque[str] = deque()
        self._wake = threading.Condition()
        self._worker: Worker | None = None
        self._closed = False
        self._most_active: int | None = None

    @property
    def forwarded_tokens(self) -> int:
        """Real tokens that went through the model since the start (dummies not counted)."""
        return self._passes.forwarded_tokens

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
            self._passes.layout.forget()
            self.version = version

    async def aclose(self) -> None:
        """Stop the worker and free memory. Requests under way are cancelled."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Let the worker finish the pass that it is in, and wait for that."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._worker is not None:
            self._worker.join()

    def _submit(self, request: GenerationRequest, deliver: Callable[[Item], None], *, streamed: bool) -> Row:
        self._validate(request)
        row = Row(request, asyncio.get_running_loop(), deliver, streamed)
        with self._wake:
            if self._closed:
                raise ModelError("the engine is closed")
            self._waiting.append(row)
            if self._worker is None:
                self._worker = Worker(self._turn, self._idle, self._end, self._wake)
            self._wake.notify_all()
        return row

    def _validate(self, request: GenerationRequest) -> None:
        ids, limit = request.prompt_ids, self._passes.packed.vocabulary
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
        self._passes.begin()
        self._passes.read_prompts(lambda: self._live)
        ready = [row for row in self._live if row.hidden is not None]
        for block in range(0, len(ready), self._lanes):
            self._sample(ready[block : block + self._lanes])
        self._passes.step([row for row in self._live if row.hidden is None and (row.replays or not row.plan)])

    @property
    def _live(self) -> list[Row]:
        """Rows in the batch that somebody waits for."""
        return [row for row in self._active if not row.cancelled]

    def _sample(self, rows: list[Row]) -> None:
        items: list[tuple[Row, Item]] = []
        for row, (token, logprob) in zip(rows, self._passes.sample(rows), strict=True):
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


def _deliver(items: Sequence[tuple[Row, Item]]) -> None:
    """Hand tokens or errors to those who wait for them; each event loop is woken once, which is a system call."""
    for loop in {row.loop for row, _ in items}:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(_hand_over, [(row, item) for row, item in items if row.loop is loop])


def _hand_over(items: Sequence[tuple[Row, Item]]) -> None:
    for row, item in items:
        row.deliver(item)
