"""axe-core, which finds what people with a keyboard, a screen reader or little sight would stumble over.

It is got from npm once and kept; a test that needs it skips where it cannot be had.
"""

import shutil
import subprocess
import tarfile
from pathlib import Path

from browser import Browser

VERSION = "4.14.1"
KEPT = Path.home() / ".cache" / "grpo-tests" / f"axe-core-{VERSION}"


def axe_core() -> str | None:
    """Its source, or None if it cannot be had."""
    file = KEPT / "package" / "axe.min.js"
    if not file.is_file():
        if shutil.which("npm") is None:
            return None
        KEPT.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}"]
        if subprocess.run(command, cwd=KEPT, capture_output=True, timeout=120, check=False).returncode:
            return None
        with tarfile.open(KEPT / f"axe-core-{VERSION}.tgz") as packed:
            packed.extract("package/axe.min.js", KEPT, filter="data")
    return file.read_text(encoding="utf-8")


def found_wrong(browser: Browser, axe: str) -> list[str]:
    """What is wrong with the page that the browser shows, one line each."""
    browser.run(f"{axe}; null")
    return browser.run(
        "axe.run(document, {resultTypes: ['violations'], preload: false}).then(({violations}) => "
        "violations.map(({id, nodes}) => id + ': ' + nodes.map((node) => node.html).join(' ')))"
    )
