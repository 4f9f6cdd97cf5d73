import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from stateset_agents.core.errors import DataError
from stateset_agents.examples.shipped import shipped, shipped_root

ROOT = Path(__file__).parents[3]


def test_a_checkout_serves_its_own_files():
    assert shipped_root() == ROOT
    assert shipped("data/customer_service_scenarios.json") == ROOT / "data" / "customer_service_scenarios.json"


def test_an_installed_package_serves_its_copies(tmp_path):
    package = tmp_path / "site-packages" / "stateset_agents"
    assert shipped_root(package) == package / "shipped"


def test_a_file_that_is_not_shipped_is_refused_with_the_list_of_those_that_are():
    with pytest.raises(DataError, match=r'"data/nope\.json" does not come .* data/customer_service_scenarios\.json'):
        shipped("data/nope.json")


def test_the_wheel_holds_both_packages_their_type_marks_and_the_shipped_files(tmp_path):
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    shipped_files = {
        f"stateset_agents/shipped/{file.relative_to(ROOT).as_posix()}"
        for folder in ("configs", "data")
        for file in (ROOT / folder).iterdir()
    }
    assert shipped_files
    assert shipped_files <= names
    for package in ("stateset_agents", "grpo_agent_framework"):
        modules = {
            file.relative_to(ROOT / "src").as_posix()
            for file in (ROOT / "src" / package).rglob("*.py*")
            if file.suffix != ".pyc"
        }
        assert modules | {f"{package}/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests")]


def test_the_source_archive_holds_what_its_tests_read(tmp_path):
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {Path(name).relative_to(Path(name).parts[0]).as_posix() for name in archive.getnames()}
    folders = ("configs", "data", "docs", "examples", "scripts", "tests")
    needed = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    kept = {file.relative_to(ROOT).as_posix() for file in needed if "__pycache__" not in file.parts}
    assert kept | {"Makefile", "README.md", "LICENSE", "constraints.txt", "pyproject.toml"} <= names
