"""Write the table of docs/health.md: `python scripts/make_health_page.py`.

Invariant: what the table says of a sign is what the code judges by. `--check` says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

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
    """The page with its table as it should be.

    Raises:
        ValueError: the table has no place on the page.
    """
    between = re.compile(r"(<!-- begin signs -->\n).*?(<!-- end signs -->)", flags=re.DOTALL)
    if len(between.findall(page)) != 1:
        raise ValueError("the page needs one place for the table: <!-- begin signs --> and <!-- end signs -->")
    return between.sub(lambda found: f"{found[1]}\n{table()}\n\n{found[2]}", page)


def main() -> int:
    """Write the page, or with `--check` compare it; 0 when it is (or was) up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page differs")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    stale = filled(page) != page
    if stale:
        if not check:
            PAGE.write_text(filled(page), encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {PAGE.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
