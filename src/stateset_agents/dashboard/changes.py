"""Telling those who look at a run that it changed.

Invariant: a run is looked at by one at a time, and what was seen is told to all who listen to it, so that a hundred
open pages cost what one does, and a page that asks a question never waits behind them.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from anyio import Lock, sleep, to_thread

from .answer import Answer
from .answers import version
from .runs import Run

MOST_LISTENERS = 256
PULSE_SECONDS = 15.0
LOOK_SECONDS = 1.0
READING_SECONDS = 0.02
"""Between two looks while a long log is being read: each of them reads on."""


@dataclass
class _Look:
    seen: Answer = field(default_factory=dict)
    at: float = float("-inf")
    lock: Lock = field(default_factory=Lock)


class Changes:
    """What listeners are told.

    Args:
        closing: whether the server is about to end, so that they are let go.
    """

    def __init__(self, closing: Callable[[], bool]) -> None:
        self._closing = closing
        self._looks: WeakKeyDictionary[Run, _Look] = WeakKeyDictionary()
        self._listeners = 0

    @property
    def full(self) -> bool:
        """Whether nobody else can listen."""
        return self._listeners >= MOST_LISTENERS

    async def of(self, run: Run) -> AsyncIterator[bytes]:
        """Server-sent events: how the run stands, and again whenever that changed."""
        self._listeners += 1
        try:
            told, spoken = None, time.monotonic()
            while not self._closing():
                seen = await self._look(run)
                if seen != told:
                    yield b"data: " + json.dumps(seen).encode() + b"\n\n"
                    told, spoken = seen, time.monotonic()
                elif time.monotonic() - spoken > PULSE_SECONDS:
                    yield b": still here\n\n"
                    spoken = time.monotonic()
                await sleep(LOOK_SECONDS if seen["complete"] else READING_SECONDS)
        finally:
            self._listeners -= 1

    async def _look(self, run: Run) -> Answer:
        look = self._looks.setdefault(run, _Look())
        async with look.lock:
            pace = LOOK_SECONDS if look.seen.get("complete") else READING_SECONDS
            if time.monotonic() - look.at > pace / 2:
                look.seen = await to_thread.run_sync(version, run)
                look.at = time.monotonic()
            return look.seen
