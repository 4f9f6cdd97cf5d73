"""The thread in which an engine works.

Invariant: while there is nothing to do the thread does not hold its engine. One that nobody else holds goes, with its
model, and the thread ends; one that is held is ended at the interpreter's exit.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from functools import partial

import torch

LOOK_SECONDS = 1.0
"""How often a worker without work looks whether anybody holds its engine; it is told sooner, nearly always."""

Turn = Callable[[], bool]


class Worker:
    """Started at once.

    Args:
        turn: a bound method of the engine: one round of work; False if the engine is closed.
        idle: another one: whether there is nothing to do. Asked with `wake` held.
        end: another one: closes the engine, and calls `join`.
        wake: is notified when there is something to do.
    """

    def __init__(self, turn: Turn, idle: Turn, end: Callable[[], None], wake: threading.Condition) -> None:
        self.thread = threading.Thread(
            target=_work,
            args=(weakref.WeakMethod(turn), weakref.WeakMethod(idle), wake),
            name="local-engine",
            daemon=True,
        )
        self.thread.start()
        # A thread inside torch when the interpreter goes down aborts the process and takes its exit code along.
        at_exit = partial(_at_exit, weakref.WeakMethod(end))
        atexit.register(at_exit)
        engine = turn.__self__  # type: ignore[attr-defined]
        self.released = weakref.finalize(engine, _release, wake, at_exit)
        self.released.atexit = False

    def join(self) -> None:
        """Wait for the turn that is under way; the engine says that it is closed."""
        self.thread.join()
        self.released()


def _work(turn_of: weakref.WeakMethod[Turn], idle_of: weakref.WeakMethod[Turn], wake: threading.Condition) -> None:
    with torch.inference_mode():
        while True:
            with wake:
                idle = idle_of()
                waits = idle is not None and idle()
                del idle
                if waits:
                    wake.wait(LOOK_SECONDS)  # not for ever: the last holder may be gone since the look
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
