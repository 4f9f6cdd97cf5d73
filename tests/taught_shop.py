"""The run that is interrupted and killed: a shop whose model was taught to call tools."""

import shutil
from pathlib import Path
from typing import Any

from workplace import Workplace

FILES = Path(__file__).parent / "e2e" / "shop"


def taught_shop(place: Path, launcher: Any) -> Workplace:
    """A place with the run's files, the model that was taught (`taught`), and what the run comes to (`whole`)."""
    for file in FILES.iterdir():
        if file.is_file():
            shutil.copy(file, place)
    work = Workplace(place, launcher)
    for config, folder in (("imitate.json", "taught"), ("run.json", "whole")):
        ended = work.train("--output-dir", folder, config=config)
        assert ended.code == 0, ended.err
    return work
