"""Pages in a real browser. Needs Chromium, node and npm; whoever asks is told what is missing."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("playwright-core@1.65.1", "axe-core@4.14.1")
MODULES = Path.home() / ".cache" / "grpo-tests" / "browser"


def missing() -> str | None:
    """What a visit lacks on this machine, in words; None if nothing. Gets the npm packages the first time."""
    for names in (("chromium", "chromium-browser", "google-chrome"), ("node",), ("npm",)):
        if not any(map(shutil.which, names)):
            return f"{names[0]} is not installed"
    if not all((MODULES / "node_modules" / package.split("@")[0]).is_dir() for package in PACKAGES):
        MODULES.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-save", "--prefix", str(MODULES), *PACKAGES]
        if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
            return f"npm cannot get {' and '.join(PACKAGES)}"
    return None


def visit(plan: dict[str, Any], scratch: Path) -> list[dict[str, Any]]:
    """What each visit of the plan saw; see `visit.mjs`."""
    file = scratch / "plan.json"
    file.write_text(json.dumps(plan))
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = ["node", str(Path(__file__).parent / "visit.mjs"), str(MODULES), chromium, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
