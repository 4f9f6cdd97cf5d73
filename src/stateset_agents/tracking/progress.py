"""What a run shows while it works, on stderr.

Invariant: a terminal gets one live panel that is redrawn in place; a pipe, CI or `NO_COLOR` gets one plain line for
each step and no control codes. Both show the same numbers, and a number that was not measured is never shown.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

log = logging.getLogger(__name__)

TREND_STEPS = 24
PACE_STEPS = 10
BARS = "▁▂▃▄▅▆▇█"


class Progress:
    """Live progress on a terminal, plain lines elsewhere.

    Example:
        with Progress() as progress:
            progress.start(60)
            progress.phase("rolling out", 12, 16)
            progress.step({"step": 1, "reward_mean": 0.53, "reward_std": 0.21, "seconds": 12.3})
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `console`, by default stderr. `clock` gives seconds."""
        self.console = console or Console(stderr=True)
        self.live = is_interactive(self.console)
        self._clock = clock
        self._display: Live | None = None
        self._total = 0
        self._step = 0
        self._phase = ""
        self._metrics: Mapping[str, Any] = {}
        self._rewards: deque[float] = deque(maxlen=TREND_STEPS)
        self._ticks: deque[float] = deque(maxlen=PACE_STEPS + 1)

    def start(self, total_steps: int, start_step: int = 0) -> None:
        """Begin; `start_step` steps were done by an earlier part of the run."""
        self._total, self._step = total_steps, start_step
        self._ticks.append(self._clock())
        if self.live and self._display is None:
            # A stdout that goes into a file stays there; only one that shares the terminal is woven into the panel.
            weave = sys.stdout is not None and sys.stdout.isatty()
            self._display = Live(
                console=self.console, refresh_per_second=4, get_renderable=self._panel, redirect_stdout=weave
            )
            self._display.start()

    def phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is going on inside the step, for example `phase("rolling out", 12, 16)`. Plain output omits it."""
        self._phase = name if done is None else f"{name} {done}/{total} episodes"

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Show a finished step.

        Args:
            metrics: the row of `metrics.jsonl`; "step" is needed, the others are shown where they are there.
        """
        self._step = int(metrics["step"])
        self._metrics = metrics
        self._phase = ""
        self._ticks.append(self._clock())
        reward = _number(metrics, "reward_mean")
        if reward is not None:
            self._rewards.append(reward)
        if not self.live:
            left = "" if self.seconds_left is None else f"left {duration(self.seconds_left)}"
            self._print("  ".join(filter(None, [f"step {self._step}/{self._total}", *describe(metrics), left])))

    def say(self, text: str) -> None:
        """Print lines that stay, above the live panel."""
        self._print(text)

    def close(self) -> None:
        """Leave the last state on the screen. A second call does nothing."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    @property
    def seconds_left(self) -> float | None:
        """Time to the end at the pace of the last steps, or None before the first one is done."""
        if len(self._ticks) < 2:
            return None
        pace = (self._ticks[-1] - self._ticks[0]) / (len(self._ticks) - 1)
        return pace * max(0, self._total - self._step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _print(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _panel(self) -> Group:
        head = Table.grid(padding=(0, 2))
        left = "" if self.seconds_left is None else f"left {duration(self.seconds_left)}"
        bar = ProgressBar(total=max(1, self._total), completed=self._step, width=30)
        head.add_row(Text(f"step {self._step}/{self._total}", style="bold"), bar, Text(left, style="dim"))
        numbers = Text("  ".join(describe(self._metrics)))
        if len(self._rewards) > 1:
            numbers.append("  " + sparkline(list(self._rewards)), style="green")
        return Group(head, numbers, Text(self._phase, style="dim"))


class LoggedProgress(Progress):
    """The same as records of the log: for whoever reads stderr by machine.

    Attributes:
        facts: the run and its last step, as they are at the time.
    """

    def __init__(self, run: str) -> None:
        super().__init__()
        self.live = False
        self.facts: dict[str, Any] = {"run": run}

    def start(self, total_steps: int, start_step: int = 0) -> None:
        """See `Progress.start`."""
        self.facts["step"] = start_step
        super().start(total_steps, start_step)

    def step(self, metrics: Mapping[str, Any]) -> None:
        """See `Progress.step`."""
        self.facts["step"] = int(metrics["step"])
        super().step(metrics)

    def _print(self, text: str) -> None:
        log.info("%s", text)


def describe(metrics: Mapping[str, Any]) -> list[str]:
    """The parts of a step's line, in their fixed order, for the numbers that are there."""
    parts = []
    reward, spread = _number(metrics, "reward_mean"), _number(metrics, "reward_std")
    if reward is not None:
        parts.append(f"reward {reward:.2f}" + ("" if spread is None else f" ± {spread:.2f}"))
    elif metrics.get("updated"):  # a run that learns from a file has no rewards
        loss = _number(metrics, "loss")
        parts += [] if loss is None else [f"loss {loss:.3f}"]
    for key, label, form in (
        ("preference_accuracy", "pairs agreed with ", ".0%"),
        ("kl", "kl ", ".3f"),
        ("tokens_per_second", "tokens/s ", ".0f"),
        ("eval_reward_mean", "evaluated reward ", ".2f"),
        ("eval_success_rate", "evaluated success ", ".0%"),
    ):
        value = _number(metrics, key)
        if value is not None:
            parts.append(f"{label}{value:{form}}")
    seconds = _number(metrics, "seconds")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return parts


def sparkline(values: Sequence[float]) -> str:
    """One block character for each value, from the lowest of them to the highest; level values lie in the middle."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return BARS[3] * len(values)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in values)


def duration(seconds: float) -> str:
    """A time to read at a glance: `45 s`, `9 min`, `1 h 12 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def is_interactive(console: Console) -> bool:
    """Whether somebody watches, so that what was shown can be drawn again in its place."""
    quiet = os.environ.get("CI", "").lower() not in ("", "0", "false") or bool(os.environ.get("NO_COLOR"))
    return console.is_terminal and not console.is_dumb_terminal and not quiet
