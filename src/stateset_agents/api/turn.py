"""A turn under way, seen by those who wait for it and those who end it.

Invariant: whoever ends a turn says why, and its client is told that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..core.trajectory import ConversationTurn
from .errors import ServeError

STUBBORN = 5.0
"""Seconds for which an agent is waited for that was cancelled and goes on."""


@dataclass(eq=False)
class Turn:
    """Work that has a task of its own, or is part of one.

    Attributes:
        task: what is cancelled to end it.
        pieces: what is there to be shown; None comes last, when it is over.
        client: who takes turns with others for a place.
        in_pieces: whether anybody waits for the pieces, or for the reply alone.
        cut: why somebody else than the client ended it.
        over: set when it is.
    """

    task: asyncio.Task[Any] | None = None
    client: str = ""
    in_pieces: bool = True
    pieces: asyncio.Queue[str | ConversationTurn | None] = field(default_factory=asyncio.Queue)
    cut: ServeError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self, why: ServeError) -> None:
        """End it; the first reason counts."""
        if self.task is not None and self.cut is None and not self.over.is_set():
            self.cut = why
            self.task.cancel()


class TurnsUnderWay:
    """All turns of the service."""

    def __init__(self) -> None:
        self._turns: set[Turn] = set()

    def add(self, turn: Turn) -> None:
        """Count a turn until it is removed."""
        self._turns.add(turn)

    def remove(self, turn: Turn) -> None:
        """A turn is over."""
        self._turns.discard(turn)
        turn.over.set()
        turn.pieces.put_nowait(None)

    async def settle(self, seconds: float) -> bool:
        """Wait until all that there are now are over; False if they are not after so long."""
        try:
            async with asyncio.timeout(seconds):
                for turn in [*self._turns]:
                    await turn.over.wait()
        except TimeoutError:
            return False
        return True

    def cancel(self, why: ServeError) -> int:
        """End all of them; returns how many they were."""
        turns = [*self._turns]
        for turn in turns:
            turn.cancel(why)
        return len(turns)
