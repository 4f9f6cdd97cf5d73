"""Writes the pictures of docs/dashboard.md: each page of the dashboard, over a folder of runs.

    python scripts/make_dashboard_pictures.py FOLDER RUN TALKS STEP

FOLDER holds runs; RUN is the one whose curves are shown, TALKS the one of whose conversations those of STEP are. Needs
Chromium. Look at what came out before you keep it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images"
MOST_BYTES = 200_000
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402 - lies beside the tests
from dashboard_site import serving  # noqa: E402


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("run")
    parser.add_argument("talks")
    parser.add_argument("step", type=int)
    asked = parser.parse_args()
    program = Browser.found()
    if program is None:
        sys.exit("Chromium is not installed")
    PICTURES.mkdir(exist_ok=True)
    run, talks = (f"#/run/{quote(name, safe='')}" for name in (asked.run, asked.talks))
    pictures = (
        ("runs", "#/", ".spark", False, 330),
        ("learning", f"{run}/learning", ".grid .chart canvas", False, 900),
        ("learning-dark", f"{run}/learning", ".grid .chart canvas", True, 900),
        ("conversations", f"{talks}/conversations?step={asked.step}", ".sample", False, 760),
        ("tokens", f"{talks}/conversations?step={asked.step}&view=tokens", ".tokens", False, 960),
        ("differences", f"{talks}/conversations?step={asked.step}&view=differences", ".differences", False, 700),
        ("health", f"{talks}/health", ".shares", False, 1180),
        ("config", f"{talks}/config", "code", False, 560),
    )
    with serving(asked.folder) as site, Browser(program) as browser:
        for name, page, ready, dark, height in pictures:
            browser.go("about:blank")
            browser.go(f"http://localhost:{site.port}/{page}", width=1280, height=height, dark=dark)
            browser.until(f"document.querySelector('{ready}') !== null")
            time.sleep(0.5)  # curves are drawn after they are there
            file = PICTURES / f"dashboard-{name}.png"
            browser.picture(file)
            size = file.stat().st_size
            print(f"{file.relative_to(ROOT)}: {size / 1000:.0f} kB" + (", too large" if size > MOST_BYTES else ""))
        if browser.problems:
            sys.exit("\n".join(browser.problems))


if __name__ == "__main__":
    main()
