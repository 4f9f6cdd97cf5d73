import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from taught_shop import taught_shop
from workplace import Launcher, Workplace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel; all other packages are those of this environment."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    # As a plain line of a .pth file, the folder is searched after the wheel, and its own .pth files (the editable
    # install) are not read.
    (site,) = (place / "env").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> Workplace:
    """A shop where a model learned to call tools (`taught`) and a run was never disturbed (`whole`)."""
    return taught_shop(tmp_path_factory.mktemp("shop"), launcher)


@pytest.fixture(scope="session")
def whole(taught: Workplace) -> dict[str, bytes]:
    """What the undisturbed run came to."""
    return taught.result("whole")


@pytest.fixture
def shop(tmp_path: Path, taught: Workplace) -> Workplace:
    """The same shop, where a run has yet to begin."""
    for file in taught.path.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "taught").symlink_to(taught.path / "taught")
    return Workplace(tmp_path, taught.launcher)
