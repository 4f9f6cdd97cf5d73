"""One writer for each run folder.

Invariant: at most one process on this machine holds the lock of a folder, and the kernel gives it back when that
process dies, however it dies; there is no stale lock to delete. On Windows there is no such lock and none is taken.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

from ..core.errors import RunFolderError

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)


class FolderLock:
    """An exclusive lock on `path`, which also names its holder. Held until `release` or the end of the process.

    Raises:
        RunFolderError: another writer holds it; the message has its process id.
        OSError: the file cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(path)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def _acquire(self, path: Path) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(self._fd, path) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            log.warning("%s: this file system has no locks, so nothing stops a second run from writing here", path)

    def release(self) -> None:
        """Let the next writer in. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def require_unlocked(path: Path) -> None:
    """Look whether a lock could be taken on `path`, without leaving a trace.

    Raises:
        RunFolderError: another writer holds it.
    """
    if sys.platform == "win32" or not path.exists():
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(fd, path) from None
    except OSError:
        return  # whoever takes it says why it cannot be taken
    finally:
        os.close(fd)


def _held(fd: int, path: Path) -> RunFolderError:
    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    holder = "this very process" if pid == str(os.getpid()) else f"process {pid or '(unknown)'}"
    return RunFolderError(
        f"{path.parent} is being written by {holder}.\n"
        "  wait for that run to end, stop it, or choose another folder with --output-dir (in Python: output_dir)"
    )
