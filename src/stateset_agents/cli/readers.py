"""Who reads what a command prints, and goes away before it ends: `| head`, a `tee` that is killed, a closed terminal.

Invariant: a run is worth more than its display. Once nobody reads a stream, what is printed there goes nowhere, and
the command goes on and ends with the code that it would have had.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

_GONE = (errno.EPIPE, errno.EIO)
"""A pipe without a reader, and a terminal that was closed."""


def outlive_readers() -> None:
    """Have standard output and standard error outlive their readers, from here to the end of the process."""
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _lasting(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # closed from the start, or somebody else's
        return stream
    lines, through = stream.line_buffering, stream.write_through
    stream.flush()
    target = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 - it lasts as long as the process
    return _Lasting(target, stream.encoding, stream.errors, line_buffering=lines, write_through=through)


class _Lasting(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._go_on_without(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._go_on_without(error)

    def _go_on_without(self, error: OSError) -> None:
        """Put nothing in the reader's place; what waits to be written goes there too."""
        if error.errno not in _GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
