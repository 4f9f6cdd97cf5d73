"""Write the table of docs/auto-adjust.md: `python scripts/make_auto_adjust_page.py`.

Invariant: what the table says of a rule is what the code moves by. `--check` says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from stateset_agents.training.adjusting import RULES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "auto-adjust.md"
_HEAD = ("signal", "what it sees", "over", "setting", "move", "up to")


def table() -> str:
    """One line for each rule, in their order."""
    lines: list[tuple[str, ...]] = [_HEAD, ("---",) * len(_HEAD)]
    for one in RULES:
        seen = (one.looks.__doc__ or "").strip()
        steps = "1 step" if one.window == 1 else f"{one.window} steps"
        lines.append((one.signal, seen, steps, f"`{one.setting}`", one.words, one.bound))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(page: str) -> str:
    """The page with its table as it should be.

    Raises:
        ValueError: the table has no place on the page.
    """
    between = re.compile(r"(<!-- begin rules -->\n).*?(<!-- end rules -->)", flags=re.DOTALL)
    if len(between.findall(page)) != 1:
        raise ValueError("the page needs one place for the table: <!-- begin rules --> and <!-- end rules -->")
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
