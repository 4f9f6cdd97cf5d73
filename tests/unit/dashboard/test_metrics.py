"""metrics.jsonl as columns, however it looks."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.dashboard.buckets import Buckets, plain
from stateset_agents.dashboard.metrics import MetricLog, last_row, sampled_rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_columns_hold_a_number_for_each_step_and_nothing_where_there_was_none(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write(log, [{"step": 1, "a": 1.5, "b": None}, {"step": 2, "b": 3, "late": True}, {"step": 3, "a": 2.5, "s": "7"}])
    metrics = MetricLog(log)
    assert metrics.update()
    assert metrics.steps.tolist() == [1, 2, 3]
    assert metrics.keys == ["a", "b", "late"]
    assert metrics.column("a").tolist()[::2] == [1.5, 2.5]
    assert math.isnan(metrics.column("a")[1])
    assert metrics.column("late")[1] == 1.0
    assert np.isnan(metrics.column("nobody knows it")).all()
    assert metrics.read_row(2) == {"step": 2, "b": 3, "late": True}
    assert metrics.read_row(7) is None


def test_lines_that_are_no_row_are_counted_and_left_out(tmp_path):
    log = tmp_path / "metrics.jsonl"
    bad = [
        '{"step": 2',
        "[1]",
        '"x"',
        '{"a": 1}',
        '{"step": true}',
        '{"step": 1}',
        '{"step": "3"}',
        "\x00\x00",
        "[" * 5000,
    ]
    bad += ['{"step": 1e400}', '{"step": NaN}', "", '{"step": 99999999999999999999999}']
    log.write_text('{"step": 1, "a": 1}\n' + "\n".join(bad) + '\n{"step": 5, "a": 1e999, "b": NaN}\n{"step": 6, "a"')
    metrics = MetricLog(log)
    metrics.update()
    assert metrics.steps.tolist() == [1, 5]
    assert metrics.skipped == len(bad)
    assert math.isnan(metrics.column("a")[1])


def test_numbers_that_no_column_can_hold_are_left_out(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        f'{{"step": 1, "a": 1{"0" * 400}, "b": 1e300}}\n{{"step": 2, "a": 2, "b": 3e38}}\n{{"step": 3, "b": -2}}\n'
    )
    metrics = MetricLog(log)
    metrics.update()
    assert np.isnan(metrics.column("a")).tolist() == [True, False, True]
    assert np.isnan(metrics.column("b")).tolist() == [True, True, False]


def test_a_run_that_was_cut_back_and_went_on_has_the_rows_that_are_there(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write(log, [{"step": step, "a": step} for step in range(1, 6)])
    metrics = MetricLog(log)
    metrics.update()
    before = metrics.version
    write(log, [{"step": step, "a": -step} for step in range(1, 9)])
    metrics.update()
    assert metrics.version > before
    assert metrics.column("a").tolist() == [-1, -2, -3, -4, -5, -6, -7, -8]


def test_many_columns_are_bounded(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write(log, [{"step": 1} | {f"key{n}": n for n in range(1000)}])
    metrics = MetricLog(log)
    metrics.update()
    assert len(metrics.keys) == 256


def test_a_name_that_is_too_long_is_no_column(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write(log, [{"step": 1, "k" * 200: 1.0, "k" * 201: 1.0}])
    metrics = MetricLog(log)
    metrics.update()
    assert metrics.keys == ["k" * 200]


def test_a_huge_line_costs_no_more_than_a_look(tmp_path):
    log = tmp_path / "metrics.jsonl"
    with log.open("wb") as file:
        file.write(b'{"step": 1}\n')
        file.write(b'{"step": 2, "a": "' + b"x" * 100_000_000 + b'"}\n')
        file.write(b'{"step": 3}\n{"step": 4}\n{"torn')
    used = time.process_time()
    assert [row["step"] for row in sampled_rows(log, 1000)] == [1, 3, 4]
    assert last_row(log) == {"step": 4}
    metrics = MetricLog(log)
    while not metrics.update():
        pass
    assert metrics.steps.tolist() == [1, 3, 4]
    assert time.process_time() - used < 5


def test_rows_from_all_over_a_log_have_its_first_and_its_last(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write(log, [{"step": step, "a": "x" * (step % 7)} for step in range(1, 5001)])
    rows = sampled_rows(log, 50)
    assert 45 <= len(rows) <= 53
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert (rows[0]["step"], rows[-1]["step"]) == (1, 5000)
    assert sampled_rows(tmp_path / "missing", 50) == []


def test_the_last_row_is_the_last_whole_one(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\ngarbled\n{"step": 3')
    assert last_row(log) == {"step": 2}
    log.write_text("")
    assert last_row(log) is None


@settings(max_examples=80, deadline=None)
@given(
    data=st.lists(
        st.one_of(st.binary(max_size=30), st.builds(lambda n: b'{"step": %d, "a": 1}' % n, st.integers(0, 9)))
    )
)
def test_no_bytes_make_it_raise(tmp_path_factory, data):
    log = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    log.write_bytes(b"\n".join(data))
    metrics = MetricLog(log)
    metrics.update()
    assert np.all(np.diff(metrics.steps) > 0)
    sampled_rows(log, 5)
    last_row(log)


def test_buckets_keep_every_extreme():
    values = np.array([1.0, 9.0, 2.0, 3.0, -5.0, 4.0, 7.0])
    buckets = Buckets.of(7, 3)
    assert buckets.size == 3
    assert buckets.mean(values).tolist() == [4.0, pytest.approx(2 / 3), 7.0]
    assert buckets.low(values).tolist() == [1.0, -5.0, 7.0]
    assert buckets.high(values).tolist() == [9.0, 4.0, 7.0]
    assert buckets.last(np.arange(7)).tolist() == [2, 5, 6]


def test_what_was_not_measured_is_no_number():
    buckets = Buckets.of(4, 2)
    found = buckets.mean(np.array([np.nan, np.nan, np.nan, 3.0]))
    assert plain(found) == [None, 3.0]
    assert plain(np.array([1 / 3, np.inf])) == [0.333333, None]


def test_few_rows_stay_as_they_are():
    assert Buckets.of(3, 100).mean(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]
    assert Buckets.of(0, 100).last(np.array([])).tolist() == []
