"""Writing so that it survives a power cut, and saying plainly when it cannot be done.

Invariant: after `sync_tree` every byte and every name under a folder is on the disk, and only then is the folder
renamed to the place where a reader looks.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import FEWER_CHECKPOINTS, MORE_FILES, RunFolderError
from ..models.memory import size

_ADVICE = {
    errno.ENOSPC: f"the disk is full: free some space, {FEWER_CHECKPOINTS}, or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: choose a folder that you may write to, or change its owner",
    errno.EPERM: "permission denied: choose a folder that you may write to, or change its owner",
    errno.EMFILE: f"this process has as many files open as it may: {MORE_FILES}",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn a failed write into one message with the path, the reason and what to do.

    Raises:
        RunFolderError: instead of an OSError, also where a library reports one in its own words.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise RunFolderError(_message(target, error.errno, error.strerror or str(error))) from error
    except SafetensorError as error:
        found = _RUST_ERROR.search(str(error))
        if found is None:
            raise
        raise RunFolderError(_message(target, int(found[1]), str(error))) from error


def require_space(folder: Path, needed: int) -> None:
    """Check that `needed` bytes are free before anything is written.

    Raises:
        OSError: ENOSPC, if not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{size(needed)} needed, {size(free)} free")


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, down to the disk."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def sync_file(path: Path) -> None:
    """Put a file's bytes on the disk."""
    sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Put a folder's list of names on the disk."""
    sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync(path: Path, flags: int) -> None:
    """Call fsync on whatever is at `path`."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(root: Path) -> None:
    """Put the list of names of every folder under `root` on the disk, innermost first, `root` itself last."""
    for folder, _, _ in os.walk(root, topdown=False):
        sync_folder(Path(folder))


def _message(target: Path, code: int | None, text: str) -> str:
    advice = _ADVICE.get(code or 0)
    why = f"{advice} ({text})" if advice else text
    return f"{target} cannot be written: {why}. Earlier checkpoints are untouched."
