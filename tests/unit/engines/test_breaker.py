"""The circuit breaker, call by call, on a clock that is set by hand."""

import pytest

from stateset_agents.engines.breaker import Breaker, BreakerOpen, BreakerState


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(window=4, failure_rate=0.5, min_calls=3, cool_down=10.0, clock=clock)


def calls(breaker, results):
    """One call a letter: g(ood), b(ad), a(nswered otherwise), n(one)."""
    for result in results:
        with breaker.admit() as call:
            {"g": call.succeeded, "b": call.failed, "a": call.answered, "n": lambda: None}[result]()


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("bb", "closed"),  # two calls are no rate
        ("bbb", "open"),
        ("gb", "closed"),
        ("gbb", "open"),  # 2 of 3
        ("ggb", "closed"),  # 1 of 3
        ("gggb", "closed"),
        ("ggbb", "open"),  # 2 of 4
        ("bgggb", "closed"),  # the first is out of the window: 1 of the last 4
        ("bgggbb", "open"),  # g g b b
        ("bbnnnnn", "closed"),  # none is no finished call
        ("bbaaaaa", "closed"),  # nor is an answer that is no failure
        ("bbaaaab", "open"),  # and it makes no failure less of one
        ("bbg", "closed"),  # 2 of 3, but the last word was good: a success never opens it
    ],
)
def test_it_opens_at_a_rate_of_failures_among_enough_of_the_last_calls(breaker, results, state):
    calls(breaker, results)
    assert breaker.state == state


def test_open_it_lets_nothing_through_until_it_has_cooled_down(breaker, clock):
    calls(breaker, "bbb")
    clock.now += 4.0
    with pytest.raises(BreakerOpen, match=r"for 6\.0 s more") as refusal:
        breaker.admit()
    assert refusal.value.seconds == 6.0
    clock.now += 6.0
    assert breaker.state is BreakerState.HALF_OPEN


def test_half_open_it_lets_a_single_probe_through_and_closes_if_that_succeeds(breaker, clock):
    calls(breaker, "bbb")
    clock.now += 10.0
    with breaker.admit() as probe:
        with pytest.raises(BreakerOpen, match="but for the call that tries whether it is back"):
            breaker.admit()
        probe.succeeded()
    assert breaker.state is BreakerState.CLOSED
    calls(breaker, "bb")  # what was before is forgotten: two calls are no rate again
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_is_answered_with_something_else_shows_that_the_service_is_there(breaker, clock):
    calls(breaker, "bbb")
    clock.now += 10.0
    calls(breaker, "a")
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_fails_opens_it_for_another_cool_down(breaker, clock):
    calls(breaker, "bbb")
    clock.now += 10.0
    calls(breaker, "b")
    assert breaker.state is BreakerState.OPEN
    clock.now += 9.9
    assert breaker.state is BreakerState.OPEN
    clock.now += 0.1
    calls(breaker, "g")
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_was_cancelled_makes_room_for_another(breaker, clock):
    calls(breaker, "bbb")
    clock.now += 10.0
    with pytest.raises(KeyboardInterrupt), breaker.admit():
        raise KeyboardInterrupt
    assert breaker.state is BreakerState.HALF_OPEN
    calls(breaker, "g")
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("late", ["succeeded", "failed"])
def test_how_a_call_from_before_ends_says_nothing_about_the_service_as_it_is(breaker, clock, late):
    old = breaker.admit()
    calls(breaker, "bbb")
    clock.now += 10.0
    probe = breaker.admit()
    with old:
        getattr(old, late)()
    assert breaker.state is BreakerState.HALF_OPEN
    with pytest.raises(BreakerOpen):  # the probe is still out
        breaker.admit()
    with probe:
        probe.succeeded()
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("wrong", [{"failure_rate": 0.0}, {"failure_rate": 1.5}, {"min_calls": 9, "window": 8}])
def test_a_breaker_that_could_never_open_is_refused(wrong):
    with pytest.raises(ValueError, match="can open a breaker"):
        Breaker(**wrong)
