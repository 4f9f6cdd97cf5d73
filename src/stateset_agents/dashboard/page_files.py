"""The files of the page, by the path under which a browser asks for them. Nothing else is ever handed out."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_files() -> dict[str, Path]:
    """Every file of the page by its path below the page's address."""
    return {
        path.relative_to(STATIC).as_posix(): path
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in TYPES and path.is_file()
    }
