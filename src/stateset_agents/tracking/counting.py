"""What a long count shows while it goes on, on stderr.

Invariant: a terminal gets one line that is redrawn in place; a pipe, CI or `NO_COLOR` gets a plain line now and then,
at most one in ten seconds, and no control codes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from .progress import duration, is_interactive

SECONDS_BETWEEN_LINES = 10.0
TO_GO_BY = 64
"""Counted ones from which the rest is estimated; of fewer than 640, a tenth. Many are under way when the first ends."""


class Counting:
    """How many are done, and how long the rest takes.

    Example:
        with Counting(300) as counting:
            counting.begin("runs/mine")
            counting.one()
    """

    def __init__(
        self, total: int, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Count to `total` on `console`, by default stderr. `clock` gives seconds."""
        self.done = 0
        self._total = total
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._name = ""
        self._started = self._begun = self._last_line = clock()
        self._display: Live | None = None

    def begin(self, name: str) -> None:
        """Say what is counted now."""
        self._name = name
        self._begun = self._clock()
        if not is_interactive(self._console):
            self.say(f"{name} ...")

    def loaded(self) -> None:
        """What passed since `begin` tells nothing of how long the rest takes."""
        self._started += self._clock() - self._begun

    def skip(self, number: int) -> None:
        """Count no more than so many fewer."""
        self._total -= number

    def one(self) -> None:
        """Count one more."""
        self.done += 1
        if self._display is None and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            self.say(str(self._line()))

    def say(self, text: str) -> None:
        """Print lines that stay."""
        self._console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Self:
        if is_interactive(self._console):
            # A stdout that goes into a file stays there; only one that shares the terminal is woven into the line.
            weave = sys.stdout is not None and sys.stdout.isatty()
            self._display = Live(
                console=self._console,
                refresh_per_second=4,
                get_renderable=self._line,
                redirect_stdout=weave,
                transient=True,
            )
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _line(self) -> Text:
        left = ""
        if self.done and self.done >= min(self._total / 10, TO_GO_BY):
            seconds = (self._clock() - self._started) / self.done * max(0, self._total - self.done)
            left = f"  left {duration(seconds)}"
        return Text(f"{self._name}: {self.done}/{self._total} episodes{left}")
