"""An update that is given up, since the run was asked to stop and would not be saved in time.

Invariant: only what can be taken back is given up: until the first weight of a step has changed, or as long as a copy
of what changes is kept. A step is whole or it was not made. Ranks give up together, at the next place where they wait
for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..engines.packed import AttentionPlan, PackedModel
from ..models.memory import memory_of
from .precision import MasterWeights
from .stop_request import StopRequest

RECENT = 5
"""Steps whose updates tell how long the next one takes; one of them may have had nothing to learn."""
MOST_OF_FREE_MEMORY = 0.25
"""That the copy of what several updates change may take: what is left is for the activations."""


class GivenUp(Exception):
    """An update was given up; weights and optimizer are as they were before its step."""


class Patience:
    """How long the update that begins now may go on once its run is asked to stop, or its task is cancelled.

    One that is expected to end in time is finished; any other is given up at once, or when the time is over.

    Args:
        stop: of the run.
        seconds: `grace_period`.
        update: seconds that updates of this run take; None: not known yet.
        save: seconds that a checkpoint takes, which comes after it; None: not known yet.
        cancels: how often the task had been cancelled before the run began, to which that was no request.
    """

    def __init__(
        self, stop: StopRequest, seconds: float, *, update: float | None, save: float | None, cancels: int = 0
    ) -> None:
        self._stop, self._cancels = stop, cancels
        self._left = seconds - (seconds / 2 if save is None else save)
        self._end = None if update is None else time.monotonic() + update
        self._task = asyncio.current_task()
        self._cancelled_at: float | None = None

    @classmethod
    def of(
        cls,
        stop: StopRequest,
        seconds: float,
        rows: Sequence[Mapping[str, Any]],
        *,
        save: float | None,
        cancels: int = 0,
    ) -> Patience:
        """For the next step of a run.

        Args:
            stop, seconds, cancels: as for the class.
            rows: of the steps before it.
            save: seconds that were spent on checkpoints since the last of them; None: the run saves nothing.
        """
        saves = (save, *(row.get("save_seconds") for row in reversed(rows)))
        return cls(
            stop,
            seconds,
            update=max((row["train_seconds"] for row in rows[-RECENT:]), default=None),
            save=0.0 if save is None else next(filter(None, saves), None),
            cancels=cancels,
        )

    def is_over(self) -> bool:
        """Whether the update must be given up. May be asked in any thread."""
        asked = self._asked_at()
        if asked is None:
            return False
        last = asked + self._left
        return time.monotonic() >= last or (self._end is not None and self._end > last)

    def _asked_at(self) -> float | None:
        if self._stop.asked_at is not None:
            return self._stop.asked_at
        if self._cancelled_at is None and self._task is not None and self._task.cancelling() > self._cancels:
            self._cancelled_at = time.monotonic()
        return self._cancelled_at


class Lookout:
    """Looks whether an update must be given up, where that can be done."""

    def __init__(self) -> None:
        self._is_over: Callable[[], bool] | None = None
        self._open = False

    @contextmanager
    def during(self, is_over: Callable[[], bool] | None) -> Iterator[None]:
        """Around a step; `is_over` says whether it must be given up."""
        self._is_over = is_over
        try:
            yield
        finally:
            self._is_over = None

    def end(self) -> None:
        """The rest of the step cannot be taken back."""
        self._is_over = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside of it `look` may raise."""
        self._open = True
        try:
            self.look()
            yield
        finally:
            self._open = False

    def look(self, *_: object) -> None:
        """Raise `GivenUp` if the update must be given up."""
        if self._open and self._is_over is not None and self._is_over():
            raise GivenUp


class WatchedModel(PackedModel):
    """A packed model that looks before the attention of each layer, and behind it on the way back.

    A micro-batch of a large model takes longer than anybody waits.

    Args:
        model: see `PackedModel`.
        look: is called; what it raises ends the pass.
    """

    def __init__(self, model: nn.Module, look: Callable[..., None]) -> None:
        super().__init__(model)
        self._look = look

    def hidden(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """See `PackedModel.hidden`."""
        return super().hidden(ids, positions, _WatchedPlan(plan, self._look))


class _WatchedPlan:
    def __init__(self, plan: AttentionPlan, look: Callable[..., None]) -> None:
        self._plan, self._look = plan, look

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """See `AttentionPlan.attend`."""
        self._look()
        if query.requires_grad:
            query.register_hook(self._look)
        return self._plan.attend(layer, query, key, value, scale, window)


class Undo:
    """What the updates of a step change, as it is now.

    Args:
        weights: the trained weights.
        trained: every trained tensor by name, those of a value head included.
        optimizer: its slots are kept too.
    """

    def __init__(self, weights: MasterWeights, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        self._weights, self._optimizer = weights, optimizer
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in trained.values()]
        self._slots: dict[Tensor, dict[str, Any]] = {
            parameter: {slot: value.clone() for slot, value in slots.items()}
            for parameter, slots in optimizer.state.items()
        }

    @classmethod
    def if_it_fits(
        cls, weights: MasterWeights, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> Undo | None:
        """None where the copy would take too much of the memory that is left."""
        own = _bytes(trained.values())
        moments = _bytes(value for slots in optimizer.state.values() for value in slots.values())
        needed = own + max(moments, 2 * own)  # before its first update an optimizer has none yet
        device = str(next(iter(trained.values())).device)
        if needed > MOST_OF_FREE_MEMORY * memory_of(device).free:
            return None
        return cls(weights, trained, optimizer)

    @torch.no_grad()
    def __call__(self) -> None:
        """Back to it; once only."""
        for tensor, was in self._tensors:
            tensor.copy_(was)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._slots)
        self._weights.publish()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
