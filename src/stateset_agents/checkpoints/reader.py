"""Reading a checkpoint: only what its manifest vouches for, only safetensors and JSON.

Invariant: with `verify` every byte was compared with what was written before the first one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CheckpointError
from .manifest import Manifest, parse_json
from .paths import MANIFEST, old_beside

if TYPE_CHECKING:
    from torch import Tensor

_RECORD_LIMIT = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        path: its folder.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    def tensors(self, stem: str) -> dict[str, Tensor]:
        """The named tensors of `<stem>.safetensors`, on the CPU.

        Raises:
            CheckpointError: there are none of that name, or the file cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._listed(stem, self.manifest.tensors, f"{stem}.safetensors")
        try:
            return load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def record(self, stem: str) -> Any:
        """The value of `<stem>.json`.

        Raises:
            CheckpointError: there is none of that name, or the file cannot be read.
        """
        path = self._listed(stem, self.manifest.records, f"{stem}.json")
        try:
            return parse_json(path, _RECORD_LIMIT)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing") from error

    def part(self, subfolder: str) -> Path:
        """The folder of a part.

        Raises:
            CheckpointError: this checkpoint has no such part.
        """
        if subfolder not in self.manifest.parts:
            raise CheckpointError(f"{self.path} has no part {subfolder!r}; it has: {_list(self.manifest.parts)}")
        return self.path / subfolder

    def _listed(self, stem: str, stems: tuple[str, ...], file: str) -> Path:
        if stem not in stems or file not in self.manifest.files:
            raise CheckpointError(f"{self.path} has no {file}; it has: {_list(stems)}")
        return self.path / file


def read_checkpoint(folder: str | Path, *, verify: bool = True) -> Checkpoint:
    """Open a checkpoint.

    Args:
        folder: its path.
        verify: compare every file's hash; otherwise only its size.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, of a later format, or holds what it must not. The message
            names the file.
    """
    path = Path(folder)
    old = old_beside(path.absolute())
    if not (path / MANIFEST).exists() and not path.exists() and (old / MANIFEST).exists():
        # Killed between the two renames of a replacement: the predecessor is whole and has only lost its name.
        path = old
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder with {MANIFEST}. Pickles are not read.")
    manifest = Manifest.read(path)
    manifest.verify(path, contents=verify)
    return Checkpoint(path, manifest)


def holds_the_same(one: Path, other: Path) -> bool:
    """Whether both are checkpoints with the same files, as their manifests say."""
    try:
        return Manifest.read(one).files == Manifest.read(other).files
    except CheckpointError:
        return False


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
