"""Where the configs and scenarios that come with the package lie.

Invariant: a name such as `configs/quickstart.yaml` means the same file in a checkout and in an installed wheel, and
its neighbours lie beside it in both: the wheel holds copies of the checkout's `configs/` and `data/`.
"""

from __future__ import annotations

from pathlib import Path

from .errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root(package: Path = _PACKAGE) -> Path:
    """The folder that holds `configs/` and `data/`: the checkout that `package` lies in, else the package's copy."""
    checkout = package.parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else package / "shipped"


def shipped(name: str) -> Path:
    """Path of a shipped file.

    Args:
        name: relative to the project's root, for example `data/customer_service_scenarios.json`.

    Raises:
        DataError: no such file is shipped; the message lists those that are.
    """
    root = shipped_root()
    path = root / name
    if not path.is_file():
        known = sorted(
            file.relative_to(root).as_posix() for part in ("configs", "data") for file in (root / part).glob("*.*")
        )
        raise DataError(f'"{name}" does not come with the package. What does: {", ".join(known)}')
    return path
