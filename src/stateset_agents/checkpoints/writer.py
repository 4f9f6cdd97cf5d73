"""Writing a checkpoint so that a kill at any instant leaves the old one or the new one.

Invariant: everything is put together in a temporary folder beside the target, brought to the disk, and appears under
its name by one rename. A good checkpoint is never written into. What holds NaN or infinity is refused before the
first byte is written. What an earlier save of the same target left half written goes: a target has one writer.

Order: check, temporary folder, files, manifest, fsync of all, rename, fsync of the parent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CheckpointError
from ..models.tensors import first_non_finite
from .disk import explained, make_folder, require_space, sync_file, sync_folder, sync_folders
from .manifest import FileEntry, Manifest, files_below, hash_file
from .paths import MANIFEST, checked_name, old_beside, temporaries_beside, temporary_beside

if TYPE_CHECKING:
    from torch import Tensor

Part = Callable[[Path], object]


def write_checkpoint(
    folder: str | Path,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    records: Mapping[str, Any] | None = None,
    parts: Mapping[str, Part] | None = None,
    part_bytes: int = 0,
    replace: bool = False,
) -> Path:
    """Write one checkpoint.

    Args:
        folder: where it will appear. Missing parents are made.
        tensors: by stem; `<stem>.safetensors` holds the named tensors, whatever device they are on.
        records: by stem; `<stem>.json` holds the value, which must be JSON without NaN.
        parts: by subfolder; each function writes files into the (existing) path it is given. "." is the root, for
            files that others look for beside the manifest.
        part_bytes: what the parts will take on the disk, as far as it is known; asked for before anything is written.
        replace: let the new checkpoint take the place of an older one of that name; otherwise that is refused. There
            is no instant at which `read_checkpoint` finds neither.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: a number is not finite, a name is not allowed, or something is there already.
        RunFolderError: the disk is full or cannot be written; nothing is left behind.
    """
    target = Path(folder).absolute()
    tensors, records, parts = tensors or {}, records or {}, parts or {}
    _check_names(target, tensors, records, parts)
    _check_finite(target, tensors)
    texts = {stem: _to_json(stem, value) for stem, value in records.items()}
    _check_target(target, replace)
    temporary = temporary_beside(target)
    with explained(target):
        make_folder(target.parent)
        needed = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
        require_space(target.parent, needed + part_bytes + sum(map(len, texts.values())))
        try:
            for left in temporaries_beside(target):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir()
            _write_parts(temporary, parts)
            _check_part_weights(temporary)
            _write_tensors(temporary, tensors)
            _write_records(temporary, texts)
            files = _seal(temporary)
            Manifest(files, tuple(tensors), tuple(records), tuple(parts)).write(temporary)
            sync_folders(temporary)
            _publish(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return target


def _check_names(
    target: Path, tensors: Mapping[str, object], records: Mapping[str, object], parts: Mapping[str, object]
) -> None:
    what = f"checkpoint {target}"
    checked_name(target.name, what)
    for name in (*tensors, *records):
        checked_name(name, what)
        if "/" in name or name == "manifest":
            raise CheckpointError(f"{what}: {name!r} cannot name a tensor or record file")
    for name in parts:
        if name != ".":
            checked_name(name, what)


def _check_finite(target: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    for stem, named in tensors.items():
        broken = first_non_finite(named)
        if broken is not None:
            raise CheckpointError(f"{target} is not written, so that no earlier checkpoint is lost: {stem}: {broken}")


def _to_json(stem: str, value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"record {stem!r} is not JSON: {error}") from error


def _check_target(target: Path, replace: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise CheckpointError(f"{target} is a file or a link; a checkpoint is a folder")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / MANIFEST).exists():
        raise CheckpointError(
            f"{target} exists and is no checkpoint; nothing in it is overwritten, choose another name"
        )
    if not replace:
        raise CheckpointError(f"{target} exists already; a checkpoint is never overwritten, choose another name")
    try:
        Manifest.read(target)
    except CheckpointError as error:
        raise CheckpointError(f"{target} cannot be replaced; move it away. {error}") from error


def _write_parts(temporary: Path, parts: Mapping[str, Part]) -> None:
    for subfolder, write in parts.items():
        place = temporary / subfolder
        place.mkdir(parents=True, exist_ok=True)
        write(place)


def _check_part_weights(temporary: Path) -> None:
    from safetensors import safe_open

    for path in temporary.rglob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                broken = first_non_finite({name: file.get_tensor(name)})
                if broken is not None:
                    raise CheckpointError(f"{temporary.name} is dropped: {path.relative_to(temporary)}: {broken}")


def _write_tensors(temporary: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    from safetensors.torch import save_file

    for stem, named in tensors.items():
        path = temporary / f"{stem}.safetensors"
        _refuse_taken(path)
        # A file holds each tensor by itself: views of one storage (tied weights) become copies.
        seen: set[int] = set()
        plain = {}
        for name, tensor in named.items():
            one = tensor.detach().cpu().contiguous()
            storage = one.untyped_storage()
            whole = storage.nbytes() == one.nbytes and storage.data_ptr() not in seen
            plain[name] = one if whole else one.clone()
            seen.add(storage.data_ptr())
        save_file(plain, str(path))


def _write_records(temporary: Path, texts: Mapping[str, bytes]) -> None:
    for stem, text in texts.items():
        path = temporary / f"{stem}.json"
        _refuse_taken(path)
        path.write_bytes(text)


def _refuse_taken(path: Path) -> None:
    if path.exists():
        raise CheckpointError(f"{path.name} is written twice: by a part, and as a record or tensors")


def _seal(temporary: Path) -> dict[str, FileEntry]:
    """Bring every file to the disk and take its size and hash; refuse what must not be in a checkpoint."""
    files = {}
    for path in files_below(temporary):
        name = path.relative_to(temporary).as_posix()
        checked_name(name, f"checkpoint {temporary}")
        if name == MANIFEST:
            raise CheckpointError(f"a part wrote {MANIFEST}, which belongs to the checkpoint itself")
        sync_file(path)
        files[name] = FileEntry(path.stat().st_size, hash_file(path))
    return files


def _publish(temporary: Path, target: Path) -> None:
    """Give the finished folder its name. A reader that finds the name missing meanwhile looks at `old_beside`."""
    old = old_beside(target)
    if target.exists() and any(target.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        sync_folder(target.parent)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
