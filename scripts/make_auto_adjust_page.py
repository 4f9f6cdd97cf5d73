"""Write the table of docs/auto-adjust.md: `python scripts/make_auto_adjust_page.py`.

Invariant: what the table says of a rule is what the code moves by. `--check` says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from made_page import with_table, written

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
    """The page with its table as it should be; ValueError where that has no place on it."""
    return with_table(page, "rules", table())


def main() -> int:
    """Write the page, or with `--check` compare it; 0 when it is (or was) up to date."""
    return written(PAGE, filled(PAGE.read_text(encoding="utf-8")), __doc__)


if __name__ == "__main__":
    sys.exit(main())
