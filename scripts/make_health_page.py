"""Write the table of docs/health.md: `python scripts/make_health_page.py`.

Invariant: what the table says of a sign is what the code judges by. `--check` says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from made_page import with_table, written

from stateset_agents.tracking.health import SIGNALS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "health.md"
_HEAD = ("sign", "keys of `metrics.jsonl`", "not fine where it is", "what it tells", "what helps")


def table() -> str:
    """One line for each sign."""
    lines: list[tuple[str, ...]] = [_HEAD, ("---",) * len(_HEAD)]
    for one in SIGNALS:
        keys = ", ".join(f"`{key}`" for key in one.keys)
        lines.append((one.name, keys, f"{one.severity}: {one.limit}", one.meaning, one.action))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def filled(page: str) -> str:
    """The page with its table as it should be; ValueError where that has no place on it."""
    return with_table(page, "signs", table())


def main() -> int:
    """Write the page, or with `--check` compare it; 0 when it is (or was) up to date."""
    return written(PAGE, filled(PAGE.read_text(encoding="utf-8")), __doc__)


if __name__ == "__main__":
    sys.exit(main())
