"""Trying again what failed in passing.

Invariant: the tries, each of them and all of them with the waits between have a limit; what does not pass is raised as
it came, with how often it was tried. Waits are by half a matter of chance, so that many callers do not come back at
once, and end at once when the caller is cancelled.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from .answers import Transient

T = TypeVar("T")

LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Tries:
    """How often something is tried.

    Attributes:
        seconds: for one try.
        retries: further tries of what failed in passing.
        total_seconds: for all tries and the waits between them.
        first_wait: seconds before the first retry, half of it by chance; doubled for each further one, up to 30.
    """

    seconds: float
    retries: int
    total_seconds: float
    first_wait: float

    def wait(self, tried: int, chance: random.Random) -> float:
        """Seconds to wait after so many tries."""
        longest: float = min(LONGEST_WAIT, self.first_wait * 2.0 ** min(tried - 1, 60))
        return longest * chance.uniform(0.5, 1.0)


async def persistently(
    attempt: Callable[[], Awaitable[T]],
    tries: Tries,
    chance: random.Random,
    tell: Callable[[Transient, float], None] = lambda error, wait: None,
) -> T:
    """Try until it works, or until the tries or the seconds are used up.

    Args:
        attempt: one try. A server's wish to be left alone (`Transient.retry_after`) is honoured, if the seconds allow.
        tries: the limits.
        chance: decides the waits.
        tell: called before each wait, with the error and the seconds.

    Raises:
        Transient: the last try's.
    """
    end = time.monotonic() + tries.total_seconds
    tried = 0
    while True:
        try:
            return await _within(min(tries.seconds, end - time.monotonic()), attempt)
        except Transient as error:
            tried += 1
            wait = max(tries.wait(tried, chance), error.retry_after or 0.0)
            spent = f"tried {tried} times" if tried > 1 else "tried once"
            if tried <= tries.retries:
                if wait < end - time.monotonic():
                    tell(error, wait)
                    await asyncio.sleep(wait)
                    if time.monotonic() < end:  # a busy process may have slept for longer
                        continue
                spent += f", and to wait {wait:.3g} s is more than is left of {tries.total_seconds:g} s"
            told = f"{error} ({spent})"
            raise Transient(told, retry_after=error.retry_after, fault=error.fault, busy=error.busy) from None


async def _within(seconds: float, attempt: Callable[[], Awaitable[T]]) -> T:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await attempt()
    except TimeoutError:
        if not limit.expired():
            raise
        raise Transient(f"no answer in {seconds:.3g} s") from None
