"""One signal that is delivered twice.

`timeout` and other supervisors signal a process and then its whole group, so that the process gets the same signal
twice within microseconds. Invariant: that is one signal, and not the second one that asks to leave at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any, NoReturn

HANG_UP = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
"""What a terminal sends that is closed; not every system has it."""

SAME_SIGNAL = 0.1
"""Seconds within which another signal is the same one; too short for a hand."""


def asking_to_stop() -> list[int]:
    """SIGTERM, and SIGHUP unless it is ignored, as under `nohup`."""
    return [signal.SIGTERM, *(number for number in HANG_UP if signal.getsignal(number) != signal.SIG_IGN)]


def pass_over_repeats(numbers: Iterable[int], then: Any = signal.SIG_DFL) -> None:
    """Let the repetitions of a signal go by; to be called in its handler, in the main thread.

    Args:
        numbers: signals that mean the same.
        then: their handler from then on.
    """
    numbers = tuple(numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(SAME_SIGNAL)
    for number in numbers:
        signal.signal(number, then)


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """A handler that does what Ctrl-C does.

    Raises:
        KeyboardInterrupt: always.
    """
    pass_over_repeats([number], interrupt)
    raise KeyboardInterrupt
