"""The two clocks of the service.

Invariant: what is stored has wall-clock time, what is waited for is measured by the monotonic clock, so that a wall
clock that is set ends no conversation.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clocks; tests have another."""

    def now(self) -> datetime:
        """Wall-clock time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()
