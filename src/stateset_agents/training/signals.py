"""Ctrl-C, SIGTERM and SIGHUP: the first one asks, the second one ends.

Invariant: the first signal is answered at once, also in the middle of a long computation, and loses nothing. From then
on the system's own handlers are back, so that the second one ends the process whatever it is doing; but for SIGHUP, of
which a terminal that is closed sends several, and a hand none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from ..core.signals import HANG_UP, asking_to_stop, pass_over_repeats

ANSWER = "stopping: what is done will be saved. Once more leaves at once, without saving"


class StopSignals:
    """While it is entered, the first Ctrl-C, SIGTERM or SIGHUP calls `request_stop`, and wakes the running event loop.

    Outside the main thread, where Python handles no signals, it does nothing.

    Args:
        request_stop: called at once, in the main thread, whatever that is doing.
        answer: called at once, with what to tell the user.
    """

    def __init__(self, request_stop: Callable[[], object], answer: Callable[[str], None]) -> None:
        self._request_stop = request_stop
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}
        self._caught = False
        self._to_raise: BaseException | None = None

    def raise_there(self, error: BaseException) -> bool:
        """Raise an error in the main thread, whatever it does, from another one. Returns whether that can be done.

        A signal is what wakes it: `time.sleep` or a request ends with the error, code that never returns to Python not.
        """
        if self._caught or not self._before or not hasattr(signal, "pthread_kill"):
            return False
        self._to_raise = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        return True

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in (signal.SIGINT, *asking_to_stop()):
                self._before[number] = signal.signal(number, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._caught:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _first(self, _number: int, _frame: FrameType | None) -> None:
        if self._to_raise is not None:
            error, self._to_raise = self._to_raise, None
            raise error
        self._caught = True
        pass_over_repeats(self._before)
        for number in self._before.keys() & HANG_UP:
            signal.signal(number, signal.SIG_IGN)
        self._request_stop()
        self._loop.call_soon_threadsafe(lambda: None)
        try:
            self._answer(ANSWER)
        except RuntimeError:  # the signal came in the middle of a write to the same stream
            os.write(2, f"\n{ANSWER}\n".encode())
