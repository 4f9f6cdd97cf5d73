"""Write the tables of docs/reward-lab.md: every built-in reward on the shipped cases.

    python scripts/write_reward_lab_table.py ['{"type": "rubric", "checks": [...]}']...

Invariant: what stands between the two marks of the document is what the lab finds, and nothing else is touched. A
reward that needs settings takes them from an entry of a config's rewards, as JSON; without one a note says so.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from stateset_agents.evaluation.reward_lab import (
    HALVES,
    Findings,
    as_markdown,
    every_built_in,
    measure,
    named,
    shipped_cases,
    stage,
)

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reward-lab.md"
BEGIN, END = "<!-- reward-lab: begin -->\n", "<!-- reward-lab: end -->\n"


async def tables(entries: list[str]) -> str:
    """What the lab finds, as Markdown."""
    given = {candidate.name: candidate for candidate in (named(entry, Path.cwd()) for entry in entries)}
    candidates = [given.pop(candidate.name, candidate) for candidate in every_built_in()]
    candidates += given.values()
    staged = {half: await stage(shipped_cases(half)) for half in HALVES}
    found: list[Findings] = []
    for candidate in candidates:
        if candidate.reward is not None:
            found += await measure(candidate.reward, staged, name=candidate.name)
    return as_markdown(found, [candidate for candidate in candidates if candidate.reward is None])


def main() -> int:
    """Run the lab, and put what it finds into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reward", nargs="*", help="an entry of a config's rewards, as JSON")
    head, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{DOCUMENT} lacks the marks {BEGIN.strip()} and {END.strip()}")
    text = asyncio.run(tables(parser.parse_args().reward))
    DOCUMENT.write_text(f"{head}{BEGIN}\n{text}\n\n{END}{tail}", encoding="utf-8")
    print(f"written: {DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
