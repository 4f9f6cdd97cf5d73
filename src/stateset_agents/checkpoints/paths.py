"""Names that may lie inside a checkpoint, and names beside one that mark something unfinished.

Invariant: a name out of a manifest never leads outside the checkpoint's folder, and never to a file that could run
code when read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from ..core.errors import CheckpointError

MANIFEST = "manifest.json"
TEMPORARY, OLD, TRASH = ".tmp-", ".old-", ".trash-"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".dill")

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")


def checked_name(name: str, what: str) -> str:
    """`name` if it can be a file or folder inside a checkpoint.

    Args:
        name: relative, with forward slashes.
        what: for the message: where the name was found.

    Raises:
        CheckpointError: it is absolute, climbs out, holds odd characters, or has a pickle's suffix.
    """
    parts = name.split("/")
    if not all(_COMPONENT.fullmatch(part) for part in parts):
        raise CheckpointError(
            f"{what}: {name!r} is refused as a name; allowed are letters, digits and ._+- in each part, none of them "
            "starting with a dot, and no way out of the folder"
        )
    if PurePosixPath(name).suffix.lower() in PICKLED:
        raise CheckpointError(
            f"{what}: {name!r} is refused: pickled files can run code when they are read; "
            "a checkpoint holds safetensors and JSON"
        )
    return name


def process_is_alive(pid: int) -> bool:
    """Whether a process of this machine, other than this one, has that id."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def temporary_beside(target: Path) -> Path:
    """Where a checkpoint is put together; the process id keeps two writers apart."""
    return target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")


def temporaries_beside(target: Path) -> list[Path]:
    """Where a checkpoint was put together by whoever was killed over it."""
    start = f"{TEMPORARY}{target.name}-"
    return [path for path in target.parent.glob(f"{start}*") if path.name.removeprefix(start).isdecimal()]


def old_beside(target: Path) -> Path:
    """Where a checkpoint waits while its successor takes its name."""
    return target.with_name(f"{OLD}{target.name}")
