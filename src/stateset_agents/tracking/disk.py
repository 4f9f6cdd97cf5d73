"""Writing small files so that a reader sees all of one or none, and errors of the disk in words.

Invariant: `replace_text` leaves either the old file or the new one under the name, whatever interrupts it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import FEWER_CHECKPOINTS, MORE_FILES, RunFolderError


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` (mode 0600) by way of a temporary file beside it.

    Args:
        path: its folder exists.
        text: the whole content.
        durable: return only when it is on the disk; False for what is written again in seconds.

    Raises:
        OSError: the disk or the folder refuses; the old file is as it was.
    """
    temporary = _beside(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def require_writable(path: Path) -> None:
    """See whether `replace_text` could write `path`, by making its temporary file and removing it.

    Raises:
        OSError: it could not.
    """
    temporary = _beside(path)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    temporary.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows cannot open a folder to sync it.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_makeable(path: Path) -> None:
    """Look, without making anything, whether a file or folder can be at `path`, with the folders that it lies in.

    Raises:
        OSError: it is known that there cannot.
    """
    place = path.absolute()
    missing: list[str] = []
    while True:
        try:
            place.stat()
            break
        except FileNotFoundError:
            missing.append(place.name)
            place = place.parent
    for name in missing:
        with contextlib.suppress(FileNotFoundError):
            (place / name).stat()  # a name may be too long
    if not os.access(place, os.W_OK | os.X_OK if place.is_dir() else os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` about the run folder `path` into a `RunFolderError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(_explanation(path, error)) from error


def _explanation(path: Path, error: OSError) -> str:
    place = error.filename or path
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            fix = (
                f"free some space, or {FEWER_CHECKPOINTS}, then continue with --resume (in Python: resume=True); a run "
                "under TRL begins anew, in another output_dir"
            )
            return f"the disk is full: {place} cannot be written.\n  {fix}"
        case errno.EMFILE:
            return f"{place} cannot be opened: this process has as many files open as it may.\n  {MORE_FILES}"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            fix = "choose a folder that you may write with --output-dir (in Python: output_dir)"
            return f"{place} cannot be written ({error.strerror}).\n  {fix}"
        case errno.ENOTDIR | errno.EEXIST:
            fix = "choose another path with --output-dir (in Python: output_dir)"
            return f"{path} cannot be a run folder: part of that path is a file, not a folder.\n  {fix}"
        case _:
            fix = "choose another folder with --output-dir (in Python: output_dir)"
            return f"{place} cannot be used ({error.strerror or error}).\n  {fix}"
