"""The quickstart over several seeds, and a control whose rewards are random and must teach nothing.

    python benchmarks/quickstart_seeds.py                 seeds 0 1 2 and the control
    python benchmarks/quickstart_seeds.py --seeds 0       one seed
    python benchmarks/quickstart_seeds.py --read runs/benchmark    the table of runs that are done

Every run is a process of its own with its own run folder under `--output-dir`, so that an interrupted series can be
taken up again: a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTROL = "control"


async def run_one(folder: Path, seed: int, *, control: bool) -> None:
    """One quickstart."""
    from stateset_agents.core.reward import RewardFunction, RewardResult
    from stateset_agents.examples.quickstart import quickstart

    class RandomReward(RewardFunction):
        """A number in [0, 1) that is a hash of the conversation: it tells good from bad as a die does."""

        async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
            text = "\0".join(turn.content for turn in turns)
            digest = hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=4).digest()
            return RewardResult(int.from_bytes(digest, "big") / 2**32)

    result = await quickstart(folder, seed=seed, reward=RandomReward() if control else None)
    print(result.text)


def table(root: Path) -> str:
    """Markdown table of the runs under `root`."""
    lines = [
        "| run | right answers before | after | conversations without a miss before | after | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for file in sorted(root.glob("*/quickstart.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        cells = [file.parent.name]
        for part in (data["answers"], {side: data[side]["success"] for side in ("before", "after")}):
            for side in ("before", "after"):
                low, high = part[side]["low"], part[side]["high"]
                cells.append(f"{part[side]['mean']:.1%} ({low:.0%} to {high:.0%})")
        lines.append("| " + " | ".join([*cells, f"{data['seconds'] / 60:.1f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--no-control", action="store_true", help="leave the run with random rewards out")
    parser.add_argument("--read", type=Path, help="print the table of a finished series")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(table(options.read))
        return
    if options.one:
        control = options.one == CONTROL
        seed = 0 if control else int(options.one)
        name = CONTROL if control else f"seed-{seed}"
        asyncio.run(run_one(options.output_dir / name, seed, control=control))
        return
    for name in [*map(str, options.seeds), *([] if options.no_control else [CONTROL])]:
        folder = options.output_dir / (name if name == CONTROL else f"seed-{name}")
        if (folder / "quickstart.json").exists():
            continue
        command = [sys.executable, __file__, "--output-dir", str(options.output_dir), "--one", name]
        subprocess.run(command, check=True)
    print(table(options.output_dir))


if __name__ == "__main__":
    main()
