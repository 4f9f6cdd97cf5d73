"""With `logging.format: json` every line of stderr and of the log file is one JSON object."""

import json
import signal

from integration.test_resume import STOP_AT

CANARY = "canary-77aa41bb"


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


def test_a_format_that_does_not_exist_is_refused(work):
    work.write(logging={"format": "jsn"})
    ended = work.train()
    assert ended.code == 2
    assert 'logging.format is "jsn", which does not exist.\n  did you mean "json"?' in ended.err
