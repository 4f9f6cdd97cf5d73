"""manifest.json: what a checkpoint consists of.

Invariant: it is written last, so a folder that has one was complete; it names every file with its size and SHA-256,
and itself carries a hash, so whatever happened to it or to a file afterwards is found.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._version import __version__
from ..core.errors import CheckpointError
from .disk import sync_file
from .paths import MANIFEST, PICKLED, checked_name

FORMAT = "stateset-agents-checkpoint"
VERSION = 1

_MANIFEST_LIMIT = 16 * 1024 * 1024
_FILES_LIMIT = 10_000
# Files that a model loader would pick up by itself, so they must not lie in a checkpoint unlisted.
_LOADED_BY_NAME = (*PICKLED, ".safetensors", ".py", ".jinja")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a checkpoint holds.

    Attributes:
        files: entry by relative path with forward slashes.
        tensors: stems of the tensor files that `Checkpoint.tensors` reads.
        records: stems of the JSON files that `Checkpoint.record` reads.
        parts: subfolders that hold files of other programs, such as a model ("." is the root).
        created: UTC, ISO 8601.
        versions: of this package, Python, torch and transformers.
        version: of the format.
    """

    files: dict[str, FileEntry]
    tensors: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def write(self, folder: Path) -> None:
        """Write it into `folder`, down to the disk."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": self.version,
            "created": self.created,
            "versions": self.versions,
            "tensors": list(self.tensors),
            "records": list(self.records),
            "parts": list(self.parts),
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()},
        }
        path = folder / MANIFEST
        data["seal"] = seal(data)
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        sync_file(path)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of `folder`; the files themselves are not looked at.

        Raises:
            CheckpointError: there is none, it is damaged, of another format, or names what it must not.
        """
        path = folder / MANIFEST
        data = _parse(path)
        if data.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is not of this package: its format is {data.get('format')!r}, not {FORMAT!r}"
            )
        version = data.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise CheckpointError(
                f"{path} has format version {version!r}, this package reads up to {VERSION}: install a later release"
            )
        if data.get("seal") != seal(data):
            raise CheckpointError(f"{path} is damaged: it is not what was written (its seal differs)")
        try:
            files = {
                checked_name(name, str(path)): FileEntry(int(entry["size"]), str(entry["sha256"]))
                for name, entry in data["files"].items()
            }
            if len(files) > _FILES_LIMIT:
                raise CheckpointError(f"{path} lists {len(files)} files; at most {_FILES_LIMIT} are read")
            return cls(
                files=files,
                tensors=tuple(map(str, data["tensors"])),
                records=tuple(map(str, data["records"])),
                parts=tuple(part if part == "." else checked_name(part, str(path)) for part in data["parts"]),
                created=str(data["created"]),
                versions=dict(data["versions"]),
                version=version,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def verify(self, folder: Path, *, contents: bool = True) -> None:
        """Check the files of `folder` against this manifest.

        Args:
            folder: the checkpoint.
            contents: compare hashes too, not only sizes.

        Raises:
            CheckpointError: a file is missing, changed or a link, or one lies there that a loader would pick up.
        """
        for name, entry in self.files.items():
            path = folder / name
            found = _regular_file(folder, name)
            if found is None:
                raise CheckpointError(f"{folder} is incomplete: {name} is missing")
            if found != entry.size:
                raise CheckpointError(f"{folder} is damaged: {name} has {found} bytes, {entry.size} were written")
            if contents and hash_file(path) != entry.sha256:
                raise CheckpointError(f"{folder} is damaged: {name} is not what was written (its SHA-256 differs)")
        for path in files_below(folder):
            name = path.relative_to(folder).as_posix()
            if name not in self.files and path.suffix.lower() in _LOADED_BY_NAME:
                raise CheckpointError(
                    f"{folder}: {name} is not part of this checkpoint, and a model loader could pick it up; remove it"
                )


def seal(data: Mapping[str, Any]) -> str:
    """SHA-256 over everything else that a manifest says, in hex. Finds damage; proves nothing about the writer."""
    rest = {key: value for key, value in data.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Everything under `folder` that is not a folder, in order.

    Raises:
        CheckpointError: a link lies among them.
    """
    found = []
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base, name)
            if path.is_symlink():
                raise CheckpointError(f"{path} is a link; a checkpoint holds plain files only")
        found += [Path(base, name) for name in names]
    return sorted(found)


def parse_json(path: Path, limit: int) -> Any:
    """A JSON file, strictly: no NaN, no infinity, no more than `limit` bytes.

    Raises:
        CheckpointError: it is none.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path} is no plain file")
        if status.st_size > limit:
            raise CheckpointError(f"{path} has {status.st_size} bytes; at most {limit} are read")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _parse(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise CheckpointError(f"{path} is a link; a checkpoint holds plain files only")
    try:
        data = parse_json(path, _MANIFEST_LIMIT)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {MANIFEST}: it is no checkpoint, or was not finished") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object")
    return data


def _regular_file(folder: Path, name: str) -> int | None:
    """Size of a plain file that is reached through plain folders; None if there is nothing.

    Raises:
        CheckpointError: a link or something else is in the way.
    """
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise CheckpointError(f"{path} is a link or a device; a checkpoint holds plain files only")
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _no_constant(text: str) -> Callable[[], None]:
    raise ValueError(f"{text} is not JSON")


def _versions() -> dict[str, str]:
    versions = {"stateset_agents": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
