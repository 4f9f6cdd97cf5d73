"""How this process keeps memory.

Invariant: no result depends on it; where it cannot be set, nothing happens. It buys speed with memory: what the
process once needed at its peak it keeps.
"""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h; the threshold's upper limit is 32 MiB on 64-bit machines.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_INT, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back to the system between passes; elsewhere nothing happens.

    Every pass frees and asks again for the same hundreds of megabytes. Getting them back from the system, page by
    page, costs time: 6.3 s against 5.4 s for a learning step of 2,000 tokens, and 14 ms against 6 ms for sampling 32
    tokens (SmolLM2 on two cores).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
