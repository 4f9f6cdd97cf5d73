"""A run, and dashboards that are served while a test goes on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dashboard_site import Site, make_run, serving


@pytest.fixture
def one_run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one")


@pytest.fixture
def site() -> Iterator[Callable[[Path], Site]]:
    """Serves the runs of a folder."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder))
