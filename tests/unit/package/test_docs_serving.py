import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stateset_agents.api import refusals
from stateset_agents.api.access import PUBLIC
from stateset_agents.api.errors import ServeError

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not part of this distribution")


def kinds(of: type[ServeError] = ServeError) -> Iterator[type[ServeError]]:
    yield of
    for one in of.__subclasses__():
        yield from kinds(one)


def test_every_problem_is_described_and_no_other():
    assert refusals.Refusal in kinds()
    documented = re.findall(r"^\| `([a-z0-9-]+)` \| (\d{3}) \| ", PAGE.read_text(), flags=re.MULTILINE)
    assert {(slug, int(status)) for slug, status in documented} == {(kind.slug, kind.status) for kind in kinds()}


def test_the_page_names_the_codes_that_are_openais_own():
    """Beside those of `api/refusals.py`, which classes have, those that `Unprocessable` is given."""
    own = {(kind.slug, kind.__dict__["code"]) for kind in kinds() if kind.__dict__.get("code")}
    assert {slug for slug, _ in own} == {"unauthorized", "no-such-model"}
    text = PAGE.read_text()
    assert all(f"`{code}` (`{slug}`)" in text for slug, code in own)
    assert all(f"`{code}`" in text for code in ("context_length_exceeded", "invalid_value", "unknown_parameter"))


def test_the_page_names_what_needs_no_token():
    assert all(f"`{path}`" in PAGE.read_text() for path in PUBLIC)
