"""What alerts may be called."""

import pytest
from pydantic import ValidationError

from stateset_agents.config.alerts import AlertRule


@pytest.mark.parametrize(
    "name", ["reward < 0,5\N{NO-BREAK SPACE}%", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} asleep"]
)
def test_a_name_has_whatever_one_line_of_text_may_have(name):
    assert AlertRule(name=name, silent_minutes=3).title == name


@pytest.mark.parametrize("char", ["\n", "\x1b", "\x85", "\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}"])
def test_a_name_of_more_than_a_line_is_refused(char):
    with pytest.raises(ValidationError, match="want one line without control characters"):
        AlertRule(name=f"low{char}reward", silent_minutes=3)


def test_a_name_that_cannot_be_written_is_refused():
    with pytest.raises(ValidationError, match="unicode"):
        AlertRule(name="low \ud800 reward", silent_minutes=3)
