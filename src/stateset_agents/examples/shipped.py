"""The examples' address of `core.shipped`."""

from __future__ import annotations

from ..core.shipped import shipped, shipped_root

__all__ = ["shipped", "shipped_root"]
