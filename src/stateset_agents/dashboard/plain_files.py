"""Opening what lies in a run folder.

Invariant: plain files are read and nothing else. A link could lead anywhere, and what it leads to would be shown and
exported as if the run had written it; a pipe or a device would keep its reader waiting for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def open_descriptor(path: Path) -> int:
    """A descriptor of a plain file, to read it; the caller closes it.

    Raises:
        OSError: there is none, it is something else, or it may not be read.
    """
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return descriptor


def open_plain(path: Path) -> BinaryIO:
    """A plain file, to read its bytes.

    Raises:
        OSError: as `open_descriptor`.
    """
    return os.fdopen(open_descriptor(path), "rb")


def read_text(path: Path, most: int) -> str | None:
    """The text of a plain file, at most so many bytes of it; None if there is none to be read."""
    try:
        with open_plain(path) as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return None


def is_plain(path: Path) -> bool:
    """Whether there is a plain file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def unreadable(path: Path) -> str | None:
    """Why a file that is there is not read, in words; None if it is, or if there is none."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return f"{path.name} is a link, and links are not followed"
    if not stat.S_ISREG(mode):
        return f"{path.name} is a {'folder' if stat.S_ISDIR(mode) else 'pipe or a device'}, not a file"
    try:
        os.close(open_descriptor(path))
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None
