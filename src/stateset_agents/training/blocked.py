"""A reward or an environment that blocks the event loop is named, and in the end ends the run.

Invariant: a thread looks at what the loop's thread does, and touches nothing of the run. Only code of a reward or an
environment is blamed: an update may take as long as it likes. A call that awaits is ended by its own limit of seconds;
one that blocks is found out after that limit, and told with its place. After three times the limit the run is stopped
in order by an error that is raised in the midst of the call, where somebody gave a way to do that. What catches that
too, or never comes back to Python, ends with the process after six times the limit, and costs what a kill costs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Self

from ..core.errors import EXIT_STOPPED, place_in
from ..core.outcome import Outcome
from ..rollouts.episode import FOREIGN_CALLS

log = logging.getLogger(__name__)

STOPPED_AFTER = 3
"""Limits after which the run is stopped."""
ENDED_AFTER = 6
"""Limits after which the process is."""
_LONGEST_LOOK = 1.0
_JOINED_WITHIN = 5.0
"""Seconds; the thread wakes at once, unless it is telling somebody of a block."""
_CALLED = {
    Outcome.REWARD: ("the reward", "reward_timeout"),
    Outcome.ENVIRONMENT: ("the environment", "environment_timeout"),
}


class BlockWatch:
    """While it is entered, a thread watches the running event loop.

    Args:
        limits: seconds of one call, by who is called; None: not watched.
        stop: raises an error with this message in the loop's thread, if it can; None in a process that is not ours.
        tell: told of each block, beside the log.
    """

    def __init__(
        self,
        limits: Mapping[Outcome, float | None],
        stop: Callable[[str], bool] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._limits = {who: seconds for who, seconds in limits.items() if seconds is not None}
        self._stop, self._tell = stop, tell
        self._look = min([_LONGEST_LOOK, *(seconds / 4 for seconds in self._limits.values())])
        self._beats = 0
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="blocked", daemon=True)

    def __enter__(self) -> Self:
        if self._limits:
            self._beat()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._next is not None:
            self._next.cancel()
        # What is told here knows the run. A thread that is the last to let go of its tensors while the interpreter goes
        # down aborts the process, and takes the exit code along.
        if self._thread.is_alive():
            self._thread.join(_JOINED_WITHIN)

    def _beat(self) -> None:
        self._beats += 1
        self._next = self._loop.call_later(self._look, self._beat)

    def _watch(self) -> None:
        beats, since, warned = -1, time.monotonic(), False
        stopping: float | None = None
        while not self._over.wait(self._look):
            found = self._blocking() if beats == self._beats else None
            now = time.monotonic()
            if found is None:
                beats, since, warned = self._beats, now, False
                continue
            who, frames = found
            limit = self._limits[who]
            if stopping is None and now - since > STOPPED_AFTER * limit and self._stop is not None:
                stopping = now
            if stopping is not None and self._stop is not None:
                if now - stopping > (ENDED_AFTER - STOPPED_AFTER) * limit:
                    log.critical("it blocks still: the process ends, and what was not saved is lost")
                    logging.shutdown()
                    os._exit(EXIT_STOPPED)
                # At each look: other conversations may come to the same call before they are cancelled.
                self._stop(f"{self._words(who, frames, STOPPED_AFTER)}: use await or a thread")
            elif now - since > limit and not warned:
                warned = True
                self._warn(who, frames)

    def _blocking(self) -> tuple[Outcome, traceback.StackSummary] | None:
        """Whose code the loop's thread is in, and its frames from there on; None if that is nobody's."""
        frame: FrameType | None = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented
        innermost = frame
        depth = 0
        while frame is not None:
            depth += 1
            who = FOREIGN_CALLS.get(frame.f_code)
            if who in self._limits and who is not None:
                stack = traceback.StackSummary.extract(traceback.walk_stack(innermost), limit=depth)
                stack.reverse()
                return who, stack
            frame = frame.f_back
        return None

    def _warn(self, who: Outcome, frames: traceback.StackSummary) -> None:
        text = self._words(who, frames, 1)
        then = "" if self._stop is None else f" After {self._limits[who] * STOPPED_AFTER:g} s the run is stopped."
        log.warning("%s: use await or a thread.%s\n%s", text, then, "".join(frames.format()).rstrip())
        self._tell(text)

    def _words(self, who: Outcome, frames: traceback.StackSummary, limits: int) -> str:
        name, key = _CALLED[who]
        place = place_in(frames) or f"{frames[-1].filename}, line {frames[-1].lineno}"
        times = "" if limits == 1 else f"{limits} times "
        return f"{name} has blocked all conversations for more than {times}{key}, {self._limits[who]:g} s, at {place}"
