"""A log that is read while it grows, is torn, is cut back."""

import os
import random
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.dashboard.follow import Follower
from stateset_agents.dashboard.metrics import last_row, sampled_rows
from stateset_agents.dashboard.plain_files import read_text, unreadable


def texts(found):
    return [line for _, line in found[1]]


def test_each_whole_line_comes_once_and_a_torn_one_when_it_is_whole(tmp_path):
    log = tmp_path / "log"
    follower = Follower(log)
    assert follower.read() == (False, [])
    log.write_bytes(b"one\ntw")
    assert follower.read() == (False, [(0, b"one\n")])
    assert follower.read() == (False, [])
    with log.open("ab") as file:
        file.write(b"o\nthree\n")
    assert follower.read() == (False, [(4, b"two\n"), (8, b"three\n")])
    assert follower.left == 0


def test_a_log_that_was_cut_back_is_handed_out_anew(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthree\n")
    follower = Follower(log)
    follower.read()
    log.write_bytes(b"one\n")
    assert follower.read() == (True, [(0, b"one\n")])


def test_a_log_that_was_cut_back_and_grew_longer_than_before_is_noticed(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n")
    follower = Follower(log)
    follower.read()
    log.write_bytes(b"one\nTWO\nthree\n")
    assert follower.read() == (True, [(0, b"one\n"), (4, b"TWO\n"), (8, b"three\n")])


def test_a_log_that_went_away_and_came_back_begins_anew(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one\n")
    follower = Follower(log)
    follower.read()
    log.unlink()
    assert follower.read() == (True, [])
    log.write_bytes(b"two\n")
    assert follower.read() == (False, [(0, b"two\n")])


def test_a_line_longer_than_a_piece_is_read_and_one_that_is_too_long_is_passed_over(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100 + b"\n" + b"y" * 1000 + b"\nend\n")
    follower = Follower(log, chunk=16, longest=256)
    assert texts(follower.read()) == [b"x" * 100 + b"\n"]
    assert texts(follower.read()) == [b"end\n"]


def test_a_torn_line_is_read_again_only_when_there_is_more_of_it(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_bytes(b"one\n" + b"x" * 100)
    follower, reads, real = Follower(log, chunk=16), [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: reads.append(at) or real(fd, size, at))
    assert texts(follower.read()) == [b"one\n"]
    assert texts(follower.read()) == []
    reads.clear()
    assert texts(follower.read()) == []
    assert reads == [0]  # whether it is still the same file, and no more
    with log.open("ab") as file:
        file.write(b"y\n")
    assert texts(follower.read()) == [b"x" * 100 + b"y\n"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "link to nothing", "socket"])
def test_what_is_no_plain_file_is_never_read_and_nobody_waits_for_it(tmp_path, kind):
    log = tmp_path / "log"
    (tmp_path / "elsewhere").write_bytes(b"secret\n")
    match kind:
        case "folder":
            log.mkdir()
        case "pipe":
            os.mkfifo(log)
        case "link":
            log.symlink_to(tmp_path / "elsewhere")
        case "link to nothing":
            log.symlink_to(tmp_path / "nowhere")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(log))
    assert Follower(log).read() == (False, [])
    assert last_row(log) is None
    assert sampled_rows(log, 5) == []
    assert read_text(log, 100) is None
    assert unreadable(log).startswith("log is a ")


def test_carriage_returns_end_no_line(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"a\rb\r\nc\x0bd\n")
    assert texts(Follower(log).read()) == [b"a\rb\r\n", b"c\x0bd\n"]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), chunk=st.integers(2, 64), seed=st.integers(0, 9))
def test_however_it_is_written_and_read_the_lines_are_those_of_the_file(tmp_path_factory, data, chunk, seed):
    log = tmp_path_factory.mktemp("log") / "log"
    follower, source, found, at = Follower(log, chunk=chunk), random.Random(seed), [], 0
    while at < len(data):
        step = source.randint(1, 50)
        with log.open("ab") as file:
            file.write(data[at : at + step])
        at += step
        found += follower.read()[1]
    while lines := follower.read()[1]:
        found += lines
    assert b"".join(line for _, line in found) == data[: data.rfind(b"\n") + 1]
    assert all(data[start : start + len(line)] == line and line.count(b"\n") == 1 for start, line in found)
