"""The thread in which an engine works.

Invariant: while there is nothing to do the thread does not hold its engine. One that nobody else holds goes, with its
model, and the thread ends; one that is held is ended at the interpreter's exit.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable

import torch

LOOK_SECONDS = 1.0
"""How often a worker without work looks whether anybody holds its engine; it is told sooner, nearly always."""

Turn = Callable[[], bool]


class Worker:
    """Started at once. It holds its engine weakly.

    Args:
        turn: a bound method of the engine: one round of work; False if the engine is closed.
        idle: another one: whether there is nothing to do. Asked with `wake` held.
        end: another one: closes the engine, and calls `join`.
        wake: is notified when there is something to do.
    """

    def __init__(self, turn: Turn, idle: Turn, end: Callable[[], None], wake: threading.Condition) -> None:
        self._turn, self._idle, self._end = weakref.WeakMethod(turn), weakref.WeakMethod(idle), weakref.WeakMethod(end)
        self._wake = wake
        weakref.finalize(turn.__self__, self._look_again).atexit = False  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self._work, name="local-engine", daemon=True)
        self.thread.start()
        # A thread inside torch when the interpreter goes down aborts the process and takes its exit code along.
        atexit.register(self._at_exit)

    def join(self) -> None:
        """Wait for the turn that is under way; the engine says that it is closed."""
        self.thread.join()
        atexit.unregister(self._at_exit)

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                with self._wake:
                    idle = self._idle()
                    waits = idle is not None and idle()
                    del idle
                    if waits:
                        self._wake.wait(LOOK_SECONDS)  # not for ever: the last holder may be gone since the look
                        continue
                turn = self._turn()
                if turn is None:
                    break
                if not turn():
                    return  # whoever closed it waits in `join`
                del turn
        atexit.unregister(self._at_exit)

    def _look_again(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _at_exit(self) -> None:
        end = self._end()
        if end is not None:
            end()
        else:
            self.thread.join()
