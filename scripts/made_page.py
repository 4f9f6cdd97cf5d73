"""A page of docs/ that is made from the code: written, or with `--check` compared.

Invariant: a page that is as it should be is not touched, and nothing is said.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def with_table(page: str, name: str, table: str) -> str:
    """The page with its one table as it should be.

    Raises:
        ValueError: the table has no place on the page.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    between = re.compile(rf"({begin}\n).*?({end})", flags=re.DOTALL)
    if len(between.findall(page)) != 1:
        raise ValueError(f"the page needs one place for the table: {begin} and {end}")
    return between.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


def written(page: Path, text: str, description: str | None) -> int:
    """What a script that makes a page does; 0 when the page is (or was) up to date.

    Args:
        page: where it lies.
        text: as it should be.
        description: the script's docstring, for `--help`.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page differs")
    check = parser.parse_args().check
    stale = not page.exists() or page.read_text(encoding="utf-8") != text
    if stale:
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {page.name}")
    return 1 if check and stale else 0
