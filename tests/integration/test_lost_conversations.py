"""A resumed run tells which conversations are gone from its log."""

import pytest

from workplace import KILLED_AFTER_3


def gone(lines):
    return None


def without_its_end(lines):
    return b"".join(lines[:4]) + lines[4][:20]


def with_a_garbled_line(lines):
    return b"".join([*lines[:5], b"\x00\xff\n", *lines[6:]])


def without_an_evaluation(lines):
    return b"".join(line for line in lines if b'"eval"' not in line)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (gone, "14 of 14 conversations up to step 2 (2 steps from 1 to 2)"),
        (without_its_end, "10 of 14 conversations up to step 2 (step 2)"),
        (with_a_garbled_line, "1 of 14 conversations up to step 2 (step 2)"),
        (without_an_evaluation, "6 of 14 conversations up to step 2 (step 2)"),
    ],
)
def test_lost_conversations_are_told_and_the_run_goes_on(work, damage, told):
    """Mutation: the log is not looked at, or without the conversations of evaluations."""
    work.write(training__eval_every=8)
    assert work.train("--num-episodes", "8").code == 0
    log = work.path / "outputs" / "trajectories.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 14  # two steps of four, and an evaluation of three scenarios, twice each
    left = damage(lines)
    log.unlink() if left is None else log.write_bytes(left)
    ended = work.train("--resume", "--num-episodes", "12")
    assert ended.code == 0, ended.err
    assert f"outputs/trajectories.jsonl has lost {told}: it was changed" in ended.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3]


def test_a_whole_log_is_not_complained_about(work):
    work.write(training__eval_every=8)
    assert work.train("--num-episodes", "8").code == 0
    ended = work.train("--resume", "--num-episodes", "12")
    assert ended.code == 0, ended.err
    assert "has lost" not in ended.err


def test_rows_that_say_nothing_of_a_step_are_no_hindrance(work):
    """Behind what the checkpoint of step 2 needs. Mutation: every row is asked for its step."""
    assert work.train(before=KILLED_AFTER_3).code == -9
    for name, row in (("metrics.jsonl", '{"note": "mine"}'), ("trajectories.jsonl", '{"step": [3], "phase": {}}')):
        with (work.path / "outputs" / name).open("a") as file:
            file.write(f"{row}\n")
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "has lost" not in ended.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3, 4]
