"""Progress: a live panel on a terminal, plain lines elsewhere, and no number that was not measured."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from stateset_agents.tracking.progress import Progress, duration, sparkline

ROW = {
    "step": 12,
    "episodes": 96,
    "reward_mean": 0.53,
    "reward_std": 0.21,
    "kl": 0.0,
    "tokens_per_second": 811.7,
    "seconds": 12.34,
}


@pytest.fixture(autouse=True)
def no_ci(monkeypatch):
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def pipe():
    return Console(file=io.StringIO(), force_terminal=False, width=40)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_pipe_gets_one_plain_line_for_each_step():
    console, clock = pipe(), Clock()
    with Progress(console, clock=clock) as progress:
        progress.start(60, start_step=11)
        progress.phase("rolling out", 3, 16)
        clock.now = 11.25
        progress.step(ROW)
    # 48 steps are left at 11.25 s each: 540 s.
    assert console.file.getvalue() == "step 12/60  reward 0.53 ± 0.21  kl 0.000  tokens/s 812  12.3 s  left 9 min\n"


def test_numbers_that_are_missing_or_not_finite_are_left_out():
    console = pipe()
    with Progress(console, clock=Clock()) as progress:
        progress.start(2)
        progress.step({"step": 1, "reward_mean": None, "kl": float("nan"), "seconds": 2.0})
        progress.step({"step": 2, "reward_mean": 0.5, "eval_reward_mean": 0.61, "eval_success_rate": 0.875})
    first, second = console.file.getvalue().splitlines()
    assert first == "step 1/2  2.0 s  left 0 s"
    assert second == "step 2/2  reward 0.50  evaluated reward 0.61  evaluated success 88%  left 0 s"


def test_time_left_follows_the_pace_of_the_last_ten_steps():
    clock = Clock()
    progress = Progress(pipe(), clock=clock)
    progress.start(100)
    assert progress.seconds_left is None
    for step in range(1, 31):
        clock.now += 100.0 if step <= 20 else 2.0
        progress.step({"step": step})
    assert progress.seconds_left == 70 * 2.0


def test_a_terminal_shows_step_reward_trend_phase_and_time_left():
    console, clock = terminal(), Clock()
    with Progress(console, clock=clock) as progress:
        assert progress.live
        progress.start(60, start_step=10)
        for step, reward in ((11, 0.1), (12, 0.53)):
            clock.now += 10.0
            progress.step(ROW | {"step": step, "reward_mean": reward})
        progress.phase("rolling out", 12, 16)
        progress.say("resumed at step 10 [exact]")
    out = console.file.getvalue()
    assert "\x1b[?25l" in out  # the cursor is hidden while the panel is live ...
    assert "\x1b[?25h" in out  # ... and given back
    last = out[out.rindex("step 12/60") :]
    for part in ("left 8 min", "reward 0.53 ± 0.21", "tokens/s 812", "▁█", "rolling out 12/16 episodes"):
        assert part in last
    assert "resumed at step 10 [exact]" in out


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("NO_COLOR", "1"), ("TERM", "dumb")])
def test_ci_no_color_and_dumb_terminals_get_plain_lines(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    console = terminal()
    with Progress(console, clock=Clock()) as progress:
        progress.start(2)
        progress.step({"step": 1, "reward_mean": 0.5})
    assert console.file.getvalue() == "step 1/2  reward 0.50  left 0 s\n"


def test_the_screen_is_given_back_when_the_run_fails():
    console = terminal()
    progress = Progress(console)
    progress.start(3)
    with pytest.raises(KeyError, match="step"), progress:
        progress.step({})
    assert console.file.getvalue().endswith("\x1b[?25h")
    progress.close()


def test_in_a_real_pipe_everything_goes_to_stderr_without_control_codes():
    code = (
        "from stateset_agents.tracking.progress import Progress\n"
        "with Progress() as p:\n"
        "    p.start(2)\n"
        "    p.step({'step': 1, 'reward_mean': 0.5, 'reward_std': 0.1})\n"
        "    p.say('a ' + 'very ' * 60 + 'long line')\n"
        "print('report')"
    )
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", env=env, check=True
    )
    assert done.stdout == "report\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 1/2  reward 0.50 ± 0.10  left ")
    assert "\x1b" not in done.stderr


def test_a_stdout_in_a_file_is_not_drawn_into_the_panel(capfd):
    console = terminal()
    with Progress(console) as progress:
        progress.start(1)
        print("report")
    assert capfd.readouterr().out == "report\n"
    assert "report" not in console.file.getvalue()


def test_the_sparkline_runs_from_the_lowest_value_to_the_highest():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▄▄"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (45.2, "45 s"), (59.9, "1 min"), (540, "9 min"), (4320, "1 h 12 min")]
)
def test_durations_are_read_at_a_glance(seconds, words):
    assert duration(seconds) == words
