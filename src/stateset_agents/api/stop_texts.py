"""Where a reply ends because of what it says.

Invariant: what is let through is the text before the first stop text, to the character, whether it comes at once or in
pieces: a piece that may be the beginning of a stop text is held back until it is one or is none.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Cuts one reply.

    Args:
        stops: the texts; none never cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self._looked = 0

    def end_of(self, text: str) -> int | None:
        """Where `text` is cut; None if no stop text is in it. `text` is the reply so far, longer at each call."""
        begin = max(0, self._looked - self._longest + 1)
        places = [place for stop in self._stops if (place := text.find(stop, begin)) >= 0]
        self._looked = len(text)
        return min(places, default=None)

    def safe(self, text: str) -> int:
        """How many characters of a reply without a stop text may be shown: those that begin none."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            if any(len(stop) > size and text.endswith(stop[:size]) for stop in self._stops):
                return len(text) - size
        return len(text)
