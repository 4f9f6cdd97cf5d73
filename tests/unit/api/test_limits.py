"""Bounds that cannot be."""

import pytest

from stateset_agents.api import ServeLimits
from stateset_agents.core.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_conversations", 0),
        ("max_conversations", 1.5),
        ("max_conversations", True),
        ("idle_seconds", 0),
        ("idle_seconds", float("nan")),
        ("idle_seconds", float("inf")),
        ("keep_seconds", 1e12),
        ("turn_wait", -1),
        ("max_running", 0),
        ("max_waiting", -1),
        ("max_new_tokens", 0),
        ("kept_forks", -1),
        ("message_characters", "many"),
    ],
)
def test_a_bound_that_cannot_be_is_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is "):
        ServeLimits(**{name: value})


def test_bounds_at_their_least():
    ServeLimits(max_waiting=0, turn_wait=0, kept_forks=0, max_new_tokens=1, idle_seconds=1, turn_seconds=0.5)


def test_each_wrong_bound_is_named():
    with pytest.raises(ConfigError) as caught:
        ServeLimits(max_running=0, turn_seconds=-1)
    assert caught.value.problems == (
        "max_running is 0; it must be a whole number from 1 to 1000000000",
        "turn_seconds is -1; it must be a number above 0, to 1000000000",
    )
