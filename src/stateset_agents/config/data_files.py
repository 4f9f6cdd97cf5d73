"""Where the data files that a config names lie.

Invariant: a relative name means the same file from any working directory in which it is found at all; a missing file
is reported with every place that was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CONFIG_FOLDERS = ("config", "configs")


def candidates(name: str, base_dir: Path, environ: Mapping[str, str]) -> list[Path]:
    """The places where a data file may lie, best first.

    Beside the config; beside the folder `configs` that holds it; in the working directory; in `GRPO_DATA_DIR`, with
    or without the folder name that both share (`data/tasks.json` in a data directory `/srv/data`).
    """
    path = Path(name).expanduser()
    if path.is_absolute():
        return [path]
    places = [base_dir / path]
    if base_dir.name in CONFIG_FOLDERS:
        places.append(base_dir.parent / path)
    places.append(Path.cwd() / path)
    if data_dir := environ.get("GRPO_DATA_DIR"):
        folder = Path(data_dir).expanduser().absolute()
        places.append(folder / path)
        if len(path.parts) > 1 and path.parts[0] == folder.name:
            places.append(folder.joinpath(*path.parts[1:]))
    return list(dict.fromkeys(places))


def find_data_file(name: str, base_dir: Path, environ: Mapping[str, str], *, folders: bool = False) -> Path | None:
    """The first place that holds the file (or, with `folders`, a folder), as an absolute path; None if none does."""
    places = candidates(name, base_dir, environ)
    return next((place.resolve() for place in places if place.is_file() or (folders and place.is_dir())), None)
