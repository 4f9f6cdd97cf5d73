"""How many conversations go through the model at once, and what happens when that is too many.

Invariant: work that ran out of memory is done again from its beginning, in pieces half as large, so that it ends as it
would have ended in such pieces from the start. All ranks cut alike. What was found to fit is remembered, by a resumed
run too.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..core.errors import first_line, is_out_of_memory
from .exclusive import out_of_memory
from .giving_up import GivenUp, Lookout
from .packing import PackedBatch, Sample
from .ranks import Alone
from .shares import bundles

T = TypeVar("T")

log = logging.getLogger(__name__)


class _TooLarge(Exception):
    """Memory ran out on one of the ranks; raised on every one."""


class MicroBatchSize:
    """The most conversations of a micro-batch.

    Args:
        asked: `batch_size`.
        ranks: the processes that share the work of a step.
        lookout: for a request to stop, while a rank works by itself.
    """

    def __init__(self, asked: int, ranks: Alone, lookout: Lookout) -> None:
        self.size = asked
        self._asked = asked
        self._ranks = ranks
        self._lookout = lookout

    def cut(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        """At most `size` conversations each; the rows of a conversation or bundle stay together."""
        part: list[Sample] = []
        conversations: set[int] = set()
        for rows in bundles(samples):
            new = {sample.conversation for sample in rows} - conversations
            if part and len(conversations) + len(new) > self.size:
                yield part
                part, conversations = [], set()
            part += rows
            conversations |= {sample.conversation for sample in rows}
        if part:
            yield part

    def until_it_fits(self, conversations: int, work: Callable[[], T], make_room: Callable[[], None]) -> T:
        """Do `work`, and again in smaller pieces whenever memory runs out inside of `fitting`.

        Args:
            conversations: of the step, the most that could be in the model at once.
            work: leaves nothing behind when it fails.
            make_room: lets go of what can be done without; called when memory has run out.

        Raises:
            ModelError: memory runs out for one conversation (or bundle) alone.
            GivenUp: the run was asked to stop.
        """
        while True:
            try:
                return work()
            except _TooLarge as error:
                reason = str(error)
            make_room()
            self._halve(
                min(self.size, conversations), reason
            )  # outside: the error holds the frames of the work, and they hold tensors

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Around work that each rank does by itself: memory that runs out and a request to stop end it on all ranks."""
        given_up, reason = False, ""
        try:
            with self._lookout.opened():
                yield
        except GivenUp:
            given_up = True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        self._settle(given_up, reason)

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """Around work that each rank does by itself: a request to stop ends it on all ranks."""
        given_up = False
        try:
            with self._lookout.opened():
                yield
        except GivenUp:
            given_up = True
        self._settle(given_up)

    def _settle(self, given_up: bool, reason: str = "") -> None:
        """What happened on any rank happens on all."""
        found = self._ranks.gather(given_up, bool(reason))
        if any(gave_up for gave_up, _ in found):
            raise GivenUp
        if any(short for _, short in found):
            raise _TooLarge(reason or "on another rank")

    def _halve(self, held: int, reason: str) -> None:
        if held <= 1:
            raise out_of_memory(MemoryError(f"one conversation alone does not fit ({reason})"))
        self.size = held // 2
        log.warning(
            "memory ran out with %d conversations in the model at once (%s): the step is done again, and from here on "
            "there are at most %d",
            held,
            reason,
            self.size,
        )
        gc.collect()

    def state_dict(self) -> dict[str, Any]:
        """What was found to fit, of what was asked for."""
        return {"size": self.size, "asked": self._asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; what is asked for now counts where it is something else than before."""
        if int(state["asked"]) == self._asked:
            self.size = int(state["size"])


class Pieces:
    """The rows of a step in micro-batches.

    Args:
        samples: of this rank.
        size: cuts them.
        device: where they are computed.

    Attributes:
        batches: the micro-batches.
        old: for each the log-probs at the start of the step, once they are known.
    """

    def __init__(self, samples: Sequence[Sample], size: MicroBatchSize, device: torch.device) -> None:
        self._samples, self._size, self._device = samples, size, device
        self._parts: list[list[Sample]] = []
        self.batches: list[PackedBatch] = []
        self.old: list[Tensor | None] = []
        self._cut_for = 0
        self.cut()

    def cut(self) -> None:
        """Cut by the present size, if that was not done yet; what is known of a row stays known."""
        if self._cut_for == self._size.size:
            return
        known = {
            id(sample): before[batch.owners == owner]
            for part, batch, before in zip(self._parts, self.batches, self.old, strict=True)
            if before is not None
            for owner, sample in enumerate(part)
        }
        self._parts = list(self._size.cut(self._samples))
        self.batches = [PackedBatch.of(part, self._device) for part in self._parts]
        self.old = [self._joined(part, batch, known) for part, batch in zip(self._parts, self.batches, strict=True)]
        self._cut_for = self._size.size

    @staticmethod
    def _joined(part: Sequence[Sample], batch: PackedBatch, known: Mapping[int, Tensor]) -> Tensor | None:
        if not known:
            return None
        joined = torch.empty(len(batch.owners), device=batch.owners.device)
        for owner, sample in enumerate(part):
            joined[batch.owners == owner] = known[id(sample)]
        return joined
