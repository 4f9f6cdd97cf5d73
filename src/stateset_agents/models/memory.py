"""How much memory this machine has to give.

Invariant: inside a container the answer is the container's limit, not the host's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .devices import choose_device

GIB = 1024**3
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the place where a model would live.

    Attributes:
        place: "RAM", or the GPU's name.
        free: bytes that can be had now.
        total: bytes in all, within the container's limit.
    """

    place: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{size(self.free)} of {self.place} free ({size(self.total)} in all)"


def size(count: float) -> str:
    """Bytes for a reader: "22.9 GiB", "810 MiB", "3.9 KiB"."""
    if count >= 1000 * GIB:
        return f"{count / 1024 / GIB:.1f} TiB"
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    if 0 < count < 1024**2:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024**2:.0f} MiB"


def memory_of(device: str | None) -> Memory:
    """Memory of `device`; None means the first CUDA GPU if there is one, otherwise RAM.

    Raises:
        ModelError: there is no such device here.
    """
    import torch

    device = choose_device(device)
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return Memory(torch.cuda.get_device_name(device), free, total)
    return ram()


def ram() -> Memory:
    """RAM that this process can still take, within every control group above it."""
    import psutil  # type: ignore[import-untyped]

    machine = psutil.virtual_memory()
    free, total = int(machine.available), int(machine.total)
    for limit, used in cgroup_limits():
        total = min(total, limit)
        free = min(free, max(limit - used, 0))
    return Memory("RAM", free, total)


def cgroup_limits(root: Path = _CGROUP_ROOT, membership: Path = _PROC_CGROUP) -> list[tuple[int, int]]:
    """(limit, used) in bytes of each control group with a memory limit, versions 1 and 2. Page cache is not used."""
    found = []
    for folder in _cgroup_folders(root, membership):
        for limit_name, used_name, cache_key in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read_number(folder / limit_name), _read_number(folder / used_name)
            if limit is not None and used is not None and limit < _NO_LIMIT:
                found.append((limit, max(used - _stat(folder / "memory.stat", cache_key), 0)))
    return found


def _cgroup_folders(root: Path, membership: Path) -> list[Path]:
    """Folders of this process's memory control group and of those above it."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's: what is mounted at the base is then our own group.
        chain = [folder, *folder.parents] if folder.is_relative_to(base) else []
        folders += [one for one in chain if one.is_relative_to(base) and one.is_dir()]
    return folders


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _stat(path: Path, key: str) -> int:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except OSError:
        return 0
    return 0
