"""The whole lines of a log that may still be written to, each of them once.

Invariant: a line is handed out when its newline is there, and never before. Where the log was cut back (a run that
resumes forgets what lies after its checkpoint) or replaced, the reader is told, and everything is handed out anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from .plain_files import open_descriptor

CHUNK = 4 * 1024 * 1024
LONGEST = 64 * 1024 * 1024
"""A line that is longer is passed over: no step and no conversation is."""


class Follower:
    """Reads a log piece by piece.

    Args:
        path: of the log; it may be missing, now or later.
        chunk: how many bytes to read at once.
        longest: bytes of the longest line that is handed out.
    """

    def __init__(self, path: Path, *, chunk: int = CHUNK, longest: int = LONGEST) -> None:
        self.path = path
        self.position = 0
        """Bytes that were handed out or passed over."""
        self._chunk = chunk
        self._longest = longest
        self._file = 0
        self._last = b""
        self._fruitless: tuple[int, int] | None = None

    @property
    def left(self) -> int:
        """Bytes behind the position, as far as the file system says."""
        try:
            return max(0, self.path.stat().st_size - self.position)
        except OSError:
            return 0

    def read(self) -> tuple[bool, list[tuple[int, bytes]]]:
        """The next whole lines, at most about one chunk of them.

        Returns:
            Whether all that was handed out before is void, and each line with the byte at which it begins.
        """
        try:
            fd = open_descriptor(self.path)
        except OSError:
            return self._forget(), []
        try:
            status = os.fstat(fd)
            known = status.st_ino == self._file and self._is_where_it_was(fd)
            restarted = not known and self._forget()
            self._file = status.st_ino
            seen = status.st_size, status.st_mtime_ns
            if not restarted and seen == self._fruitless:
                return False, []  # a torn line may be long, and is not read again until there is more of it
            found: list[tuple[int, bytes]] = []
            at = None
            while not found and at != self.position:  # it moves on without a line where one was too long
                at = self.position
                found = self._lines(fd)
            self._fruitless = None if found else seen
            return restarted, found
        except OSError:
            return False, []
        finally:
            os.close(fd)

    def _forget(self) -> bool:
        was = self.position > 0
        self.position, self._last, self._fruitless = 0, b"", None
        return was

    def _is_where_it_was(self, fd: int) -> bool:
        return os.pread(fd, len(self._last), self.position - len(self._last)) == self._last

    def _lines(self, fd: int) -> list[tuple[int, bytes]]:
        size = self._chunk
        data = os.pread(fd, size, self.position)
        while b"\n" not in data and len(data) == size:
            if size >= self._longest:
                return self._pass_over(fd, size)
            size = min(2 * size, self._longest)
            data = os.pread(fd, size, self.position)
        whole = data[: data.rfind(b"\n") + 1]
        found, start = [], self.position
        for text in whole.split(b"\n")[:-1]:
            found.append((start, text + b"\n"))
            start += len(text) + 1
        if found:
            self.position, self._last = start, found[-1][1][-256:]
        return found

    def _pass_over(self, fd: int, size: int) -> list[tuple[int, bytes]]:
        at = self.position + size
        while data := os.pread(fd, self._chunk, at):
            cut = data.find(b"\n") + 1
            if cut:
                self.position = at + cut
                self._last = os.pread(fd, 256, self.position - 256)
                return []
            at += len(data)
        return []
