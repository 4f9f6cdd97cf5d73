"""Where models that are only read do their passes: in one thread, whoever asks.

Invariant: a pass over the same ids has the same bits. How many threads torch computes with is a setting of each thread,
the engine has one of its own, and with another number the last bits of a product differ (measured: 1e-5 on SmolLM2).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_reader = ThreadPoolExecutor(1, thread_name_prefix="frozen-model")


def in_one_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function in that thread and wait. It must not ask for the thread itself."""
    return _reader.submit(function, *args, **kwargs).result()
