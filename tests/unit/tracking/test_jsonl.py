"""Append-only logs: strict JSON, whole lines, cut only at the end."""

import errno
import json
import os

import numpy as np
import pytest

from stateset_agents.tracking.jsonl import JsonlLog, read_jsonl, to_line


def fresh(path, *rows):
    log = JsonlLog(path)
    for row in rows:
        log.append(row)
    return log


def test_numbers_that_are_not_finite_are_written_as_null_with_their_key_kept():
    line = to_line({"step": 1, "kl": float("nan"), "loss": float("inf"), "deep": [float("-inf"), {"x": 0.5}]})
    assert line == b'{"step": 1, "kl": null, "loss": null, "deep": [null, {"x": 0.5}]}\n'


def test_numpy_scalars_become_numbers_and_unknown_objects_their_repr():
    row = json.loads(to_line({"step": np.int64(3), "reward": np.float32(0.5), "nan": np.float64("nan"), "x": {1}}))
    assert row == {"step": 3, "reward": 0.5, "nan": None, "x": [1]}
    assert json.loads(to_line({"metadata": object}))["metadata"] == "<class 'object'>"


def test_a_lone_surrogate_in_a_reply_does_not_end_the_run():
    assert json.loads(to_line({"content": "half \ud83d"})) == {"content": "half \ud83d"}


def test_line_breaks_inside_text_stay_inside_their_line(tmp_path):
    fresh(tmp_path / "log", {"content": "one\ntwo\u2028three"}, {"content": "next"}).close()
    assert [row["content"] for row in read_jsonl(tmp_path / "log")] == ["one\ntwo\u2028three", "next"]


@pytest.mark.parametrize("tail", [b'{"step": 3, "rew', b'{"step": 3}', b"\x00\x00\x00", b'{"step": 3, "re\n'])
def test_a_torn_last_line_is_not_read_and_is_cut_before_the_next_append(tmp_path, tail):
    path = tmp_path / "log"
    fresh(path, {"step": 1}, {"step": 2}).close()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]

    fresh(path, {"step": 3}).close()
    assert path.read_bytes() == whole + b'{"step": 3}\n'


def test_a_broken_line_in_the_middle_is_skipped_with_a_warning_that_names_it(tmp_path, caplog):
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n\x00\x00\n{"step": 2}\n')
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]
    assert f"{path}, line 2 is not a JSON object" in caplog.text


def test_truncate_keeps_the_bytes_up_to_the_step_and_goes_on_after_them(tmp_path):
    path = tmp_path / "log"
    log = fresh(path, {"step": 1}, {"step": 2, "sample": 0}, {"step": 2, "sample": 1}, {"step": 3}, {"step": 4})
    kept = b'{"step": 1}\n{"step": 2, "sample": 0}\n{"step": 2, "sample": 1}\n'
    assert log.truncate_after(2) == 2 * len(b'{"step": 3}\n')
    assert path.read_bytes() == kept
    assert log.size == len(kept)
    log.append({"step": 3, "again": True})
    assert path.read_bytes() == kept + b'{"step": 3, "again": true}\n'
    assert log.truncate_after(9) == 0
    log.close()


def test_a_line_that_the_disk_took_only_in_part_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "log"
    log = fresh(path, {"step": 1})
    write = os.write
    calls = []

    def full_disk(fd, data):
        calls.append(len(data))
        if len(calls) == 1:
            return write(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        log.append({"step": 2})
    monkeypatch.undo()
    assert path.read_bytes() == b'{"step": 1}\n'
    log.append({"step": 2})
    log.close()
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]


def test_the_log_is_readable_by_its_owner_alone(tmp_path):
    fresh(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_does_not_exist_has_no_rows(tmp_path):
    assert list(read_jsonl(tmp_path / "none")) == []
