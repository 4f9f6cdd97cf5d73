"""A folder with one valid config and the scenarios that it names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SCENARIOS = {"scenarios": [{"id": "refund", "user_responses": ["I want a refund.", "It is order 7.", "Thanks."]}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds `scenarios.json`."""
    (tmp_path / "scenarios.json").write_text(json.dumps(SCENARIOS))
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Writes a config file into the folder and returns its path."""

    def write_config(text: str, name: str = "run.yaml") -> Path:
        path = folder / name
        path.write_text(text)
        return path

    return write_config
