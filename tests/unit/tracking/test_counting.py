"""What a long count shows while it goes on."""

import io

from rich.console import Console

from stateset_agents.tracking.counting import Counting


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def counted(console: Console, clock: Clock, total: int, *, every: float) -> Counting:
    with Counting(total, console, clock=clock) as counting:
        counting.begin("runs/mine")
        for _ in range(5):
            clock.seconds += every
            counting.one()
    return counting


def test_a_pipe_gets_a_line_in_ten_seconds_and_no_control_codes():
    out = io.StringIO()
    # 4 s an episode: after 12 s three of 20 are done, so 17 times 4 s are left
    counted(Console(file=out), Clock(), 20, every=4.0)
    assert out.getvalue().splitlines() == ["runs/mine ...", "runs/mine: 3/20 episodes  left 1 min"]


def test_what_is_not_played_is_no_longer_waited_for():
    out, clock = io.StringIO(), Clock()
    with Counting(20, Console(file=out), clock=clock) as counting:
        counting.skip(15)
        clock.seconds += 12
        counting.one()
    assert out.getvalue() == ": 1/5 episodes  left 48 s\n"


def test_a_terminal_gets_one_line_that_is_taken_away_again(monkeypatch):
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    counted(Console(file=out, force_terminal=True, width=80), Clock(), 5, every=1.0)
    assert "runs/mine: 5/5 episodes  left 0 s" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


def test_the_rest_is_estimated_once_a_tenth_is_done_and_loading_is_no_part_of_it():
    out, clock = io.StringIO(), Clock()
    with Counting(20, Console(file=out), clock=clock) as counting:
        counting.begin("runs/mine")
        clock.seconds += 100  # a model is loaded
        counting.loaded()
        for _ in range(2):
            clock.seconds += 10
            counting.one()
        counting.begin("the floors")
        clock.seconds += 100
        counting.loaded()
        clock.seconds += 10
        counting.one()
    assert out.getvalue().splitlines() == [
        "runs/mine ...",
        "runs/mine: 1/20 episodes",
        "runs/mine: 2/20 episodes  left 3 min",
        "the floors ...",
        "the floors: 3/20 episodes  left 3 min",
    ]
