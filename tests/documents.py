"""Pages of the documents that a script writes."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def script_of(name: str) -> ModuleType:
    """A program of `scripts/`, to call its functions."""
    if (folder := str(ROOT / "scripts")) not in sys.path:  # where a program finds its neighbours
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_is_what_it_writes(name: str) -> None:
    """Nothing has changed since the program wrote its pages."""
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
