"""With `logging.format: json` every line of stderr and of the log file is one JSON object."""

import json
import signal

import pytest

from integration.test_resume import STOP_AT

CANARY = "canary-77aa41bb"
MOVE = """
from stateset_agents.training.adjusting import adjuster
def after(self, rows):
    if rows[-1]["step"] == 1:
        self._make(adjuster.Move(1, "test", "temperature", 1.0, 0.9, "this test wants it"))
        return self.moves[-1]
adjuster.Adjuster.after = after
"""


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_on_stderr_parses_from_the_first_note_to_the_command_that_goes_on(work):
    work.write(logging={"format": "json"})
    stopped = work.train(before=STOP_AT.format(step=2, number=int(signal.SIGTERM)))
    assert stopped.code == 75
    rows = records(stopped.err)
    assert {key for row in rows for key in row} == {"time", "level", "logger", "message", "run", "step"}
    steps = [(row["run"], row["step"]) for row in rows if row["message"].startswith("step ")]
    assert steps == [("outputs", 1), ("outputs", 2)]
    assert any(row["message"].startswith("stopping: ") for row in rows)
    assert "To continue:\n  grpo-train run.json --resume" in rows[-1]["message"]
    assert stopped.out == ""
    ended = work.train("--resume")
    assert ended.code == 0
    assert [row["step"] for row in records(ended.err) if row["message"].startswith("step ")] == [3, 4]
    assert ended.out == (work.path / "outputs" / "report.txt").read_text()


def test_with_a_log_file_it_has_every_record_once_and_stderr_the_warnings_and_no_secret_is_in_either(work):
    broken = (
        "async def vowels(turns, context=None):\n    import os\n    raise ValueError(os.environ['SHOP_PASSWORD'])\n"
    )
    (work.path / "my_rewards.py").write_text(broken)
    work.write(logging={"format": "json", "log_file": "run.log", "level": "debug"})
    ended = work.train("--debug", SHOP_PASSWORD=CANARY)
    assert ended.code == 4
    text = (work.path / "outputs" / "run.log").read_text()
    said = [row["message"] for row in records(text)]
    assert len([message for message in said if message.startswith("4 steps of 4 conversations")]) == 1
    assert CANARY not in text + ended.err
    rows = records(ended.err)
    assert not [row for row in rows if row["message"].startswith("4 steps of 4 conversations")]
    assert rows[-1]["level"] == "ERROR"
    assert "ValueError: ***" in rows[-1]["message"]
    assert "Traceback" in rows[-1]["error"]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("log_file", [None, "run.log"])
def test_what_a_run_finds_out_is_told_once_to_each_place(work, form, log_file):
    """The self-test is told for each update that it watches, on the terminal for the first one alone.

    Mutations: what progress logs is logged again; a move of the settings that is said and logged; the end of a run that
    is logged beside what the command says of it.
    """
    work.write(
        logging={"format": form, **({} if log_file is None else {"log_file": log_file})}, training__auto_adjust=True
    )
    stopped = work.train(before=MOVE + STOP_AT.format(step=3, number=int(signal.SIGTERM)))
    assert stopped.code == 75, stopped.err
    # With a log file, JSON on stderr is for warnings and errors.
    seen = [("because this test wants it", int(form == "text" or log_file is None)), ("stopped and saved at step 3", 1)]
    assert [stopped.err.count(text) for text, _ in seen] == [count for _, count in seen]
    assert stopped.err.count("self-test: ") == seen[0][1]
    if log_file is not None:
        written = (work.path / "outputs" / log_file).read_text()
        assert [written.count(text) for text, _ in seen] == [1, 1]
        assert written.count("self-test: ") == 2


def test_a_format_that_does_not_exist_is_refused(work):
    work.write(logging={"format": "jsn"})
    ended = work.train()
    assert ended.code == 2
    assert 'logging.format is "jsn", which does not exist.\n  did you mean "json"?' in ended.err
