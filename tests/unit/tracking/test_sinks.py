"""Sinks: right at the start or a config error; after that they cannot stop a run."""

import json
import re
import struct
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.tracking.sinks import Sinks, TensorBoardSink, WandbSink, delivery
from stateset_agents.tracking.sinks.base import COLUMNS
from stateset_agents.tracking.sinks.mlflow import MlflowSink
from stateset_agents.tracking.sinks.trackio import TrackioSink


class FakeWandb(ModuleType):
    """The client library at its seam: records calls, and misbehaves when told to."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.rows, self.metrics, self.exit_codes, self.broken = [], [], [], [], None

    def Settings(self, **settings):
        return settings

    def Table(self, columns, data):
        return SimpleNamespace(columns=columns, data=data)

    def init(self, **arguments):
        if self.broken:
            raise self.broken
        self.inits.append(arguments)
        return SimpleNamespace(
            id=arguments["id"] or "abc123",
            define_metric=lambda *args, **kwargs: self.metrics.append((args, kwargs)),
            log=self._log,
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )

    def _log(self, row):
        if self.broken:
            raise self.broken
        self.rows.append(row)


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_the_numbers_under_their_step_and_the_config_without_secrets(wandb, tmp_path):
    sinks = Sinks([WandbSink("shop", entity="team", tags=["grpo"])])
    sinks.start(tmp_path, {"training": {"beta": 0.1}, "serve": {"auth_token": "hush-hush"}})
    sinks.log(
        {"step": 3, "reward_mean": 0.5, "kl": None, "entropy": float("nan"), "eval_reward_mean": 0.7, "note": "x"}
    )
    sinks.close()
    init = wandb.inits[0]
    assert (init["project"], init["entity"], init["tags"], init["dir"]) == ("shop", "team", ["grpo"], str(tmp_path))
    assert init["config"] == {"training": {"beta": 0.1}, "serve": {"auth_token": "***"}}
    assert wandb.rows == [{"train/step": 3, "train/reward_mean": 0.5, "eval/reward_mean": 0.7}]
    assert (("*",), {"step_metric": "train/step"}) in wandb.metrics
    assert wandb.exit_codes == [0]


def test_wandb_sends_neither_the_terminal_nor_code(wandb, tmp_path):
    Sinks([WandbSink("shop")]).start(tmp_path, {})
    assert wandb.inits[0]["settings"] == {"console": "off", "disable_git": True, "save_code": False}


def started(sink, folder, start_step=0):
    sinks = Sinks([sink])
    sinks.start(folder, {}, start_step)
    return sinks


def sent(sinks, *steps):
    for step in steps:
        sinks.log({"step": step, "reward_mean": step / 8})
    sinks.close()


def test_a_resumed_run_goes_on_in_the_same_wandb_record(wandb, tmp_path):
    sent(started(WandbSink("shop"), tmp_path), 1, 2)
    sent(started(WandbSink("shop"), tmp_path, 2), 3)
    assert (wandb.inits[0]["id"], wandb.inits[1]["id"]) == (None, "abc123")
    assert wandb.inits[1]["resume"] == "allow"
    assert [row["train/step"] for row in wandb.rows] == [1, 2, 3]


@pytest.mark.parametrize("saved", [0, 2])
def test_steps_that_are_done_again_after_a_crash_are_sent_once(wandb, tmp_path, saved):
    """Five steps were done, a checkpoint is older or there is none: the record has each step once, in order."""
    sent(started(WandbSink("shop"), tmp_path), 1, 2, 3, 4, 5)
    crashed = started(WandbSink("shop"), tmp_path, saved)
    sent(crashed, *range(saved + 1, 4))  # and again, before it came as far as it had been
    sent(started(WandbSink("shop"), tmp_path, saved), *range(saved + 1, 8))
    assert [row["train/step"] for row in wandb.rows] == [1, 2, 3, 4, 5, 6, 7]


def test_a_record_that_cannot_be_read_is_told_and_begun_anew(wandb, tmp_path, caplog):
    (tmp_path / "trackers.json").write_text('{"wandb": 3}')
    sent(started(WandbSink("shop"), tmp_path), 1)
    assert "trackers.json cannot be read" in caplog.text
    assert [row["train/step"] for row in wandb.rows] == [1]


class Slow:
    """A sink of somebody else: hangs, raises or ends the interpreter, where it is told to."""

    name, rewinds = "slow", False

    def __init__(self, **does):
        self.does, self.rows, self.free = does, [], threading.Event()

    def _do(self, what):
        match self.does.get(what):
            case "hang":
                self.free.wait(20)
            case None:
                return
            case error:
                raise error

    def start(self, folder, config, start_step):
        self._do("start")

    def log(self, step, metrics):
        self._do("log")
        self.rows.append(step)

    def close(self, *, failed):
        self._do("close")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_sink_that_hangs_holds_up_nobody_and_is_left_behind(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(delivery, "MOST_WAITING", 5)
    stuck, other = Slow(log="hang"), Slow()
    other.name = "other"
    sinks = Sinks([stuck, other])
    sinks.start(tmp_path, {})
    begin = time.monotonic()
    for step in range(1, 9):
        sinks.log({"step": step, "reward_mean": 0.5})
        while len(other.rows) < step:
            time.sleep(0.001)
    sinks.close()
    stuck.free.set()
    assert time.monotonic() - begin < 5
    assert other.rows == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sinks.failures["slow"] in (2, 3)  # eight rows, five places, and perhaps one that had left its place
    assert "slow does not answer and is left behind; metrics.jsonl has every row" in caplog.text
    assert "5 rows wait for it" in caplog.text


def test_a_run_that_was_told_to_stop_waits_less_for_a_sink_that_hangs(tmp_path, caplog):
    stuck = Slow(log="hang")
    sinks = Sinks([stuck])
    sinks.start(tmp_path, {})
    sinks.log({"step": 1, "reward_mean": 0.5})
    begin = time.monotonic()
    sinks.close(failed=True, seconds=0.1)  # not the minute of one that came to its end
    stuck.free.set()
    assert time.monotonic() - begin < 5
    assert "slow does not answer and is left behind" in caplog.text


def test_a_sink_that_hangs_or_raises_at_the_start_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "START_SECONDS", 0.1)
    stuck = Slow(start="hang")
    with pytest.raises(ConfigError, match="slow did not start within 0 seconds; leave it out"):
        Sinks([stuck]).start(tmp_path, {})
    stuck.free.set()
    with pytest.raises(ConfigError, match=r"slow did not start: ValueError\('no'\); mend that, or leave it out"):
        Sinks([Slow(start=ValueError("no"))]).start(tmp_path, {})


@pytest.mark.parametrize("error", [TimeoutError("no network"), SystemExit(1)])
def test_what_a_sink_raises_at_the_start_is_told_as_it_is(tmp_path, error):
    with pytest.raises(ConfigError, match=re.escape(f"slow did not start: {error!r}; mend that")):
        Sinks([Slow(start=error)]).start(tmp_path, {})


@pytest.mark.parametrize("what", ["log", "close"])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_sink_raises_stays_with_the_sink(tmp_path, what, error, caplog):
    sinks = started(Slow(**{what: error}), tmp_path)
    sent(sinks, 1, 2)
    assert sinks.failures == {"slow": 2 if what == "log" else 1}
    assert f"slow failed, training goes on: {error!r}" in caplog.text


def conversation(number, reward=0.5):
    turns = [ConversationTurn("user", f"Question {number}?"), ConversationTurn("assistant", "hunter22hunter22")]
    return MultiTurnTrajectory("price", key=f"k/{number}", turns=turns, reward=reward)


def test_the_first_conversations_of_a_step_go_out_once_without_secrets(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "hunter22hunter22")
    for again in range(2):
        sinks = started(WandbSink("shop", samples=2), tmp_path)
        sinks.sample(1, [TrajectoryGroup.of("price", [conversation(number) for number in range(3)])])
        sent(sinks, 1, 2)
        assert len(wandb.rows) == 3, again
    first, table, last = wandb.rows
    assert table["samples"].columns == list(COLUMNS)
    assert table["samples"].data == [
        [1, "price", f"user: Question {number}?\nassistant: ***", 0.5, "ok"] for number in (0, 1)
    ]
    assert (table["train/step"], first["train/step"], last["train/step"]) == (1, 1, 2)


def test_conversations_of_a_step_that_a_crash_cut_off_are_sent_with_its_row_alone(wandb, tmp_path):
    for crashes in (True, False):
        sinks = started(WandbSink("shop", samples=1), tmp_path)
        sinks.sample(1, [TrajectoryGroup.of("price", [conversation(0)])])
        sent(sinks, *([] if crashes else [1]))
        assert sum("samples" in row for row in wandb.rows) == (not crashes)


def test_rows_that_waited_when_a_run_was_killed_are_sent_by_the_one_that_goes_on(wandb, tmp_path):
    """Steps 3 and 4 were logged and checkpointed, and the sink had not come so far."""
    sent(started(WandbSink("shop"), tmp_path), 1, 2)
    rows = [{"step": step, "reward_mean": step / 8, "kl": None} for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sent(started(WandbSink("shop"), tmp_path, 4), 5)
    assert [(row["train/step"], row["train/reward_mean"]) for row in wandb.rows] == [(n, n / 8) for n in range(1, 6)]
    (tmp_path / "trackers.json").unlink()
    sent(started(WandbSink("shop"), tmp_path, 4), 5)
    assert [row["train/step"] for row in wandb.rows] == [1, 2, 3, 4, 5, 5]  # a record of its own begins where it is


def test_a_record_that_cannot_be_written_keeps_nothing_from_a_sink(wandb, tmp_path, caplog):
    sinks = started(WandbSink("shop"), tmp_path)
    (tmp_path / "trackers.json").unlink()
    (tmp_path / "trackers.json").mkdir()
    sent(sinks, 1, 2)
    assert [row["train/step"] for row in wandb.rows] == [1, 2]
    assert sinks.failures == {"wandb": 0}
    assert caplog.text.count("trackers.json cannot be written") == 1


def test_what_trackio_says_is_not_shown_and_what_the_run_prints_meanwhile_is(monkeypatch, tmp_path, capsys):
    inside, printed = threading.Event(), threading.Event()

    def init(**arguments):
        print("* Trackio project initialized")
        inside.set()
        assert printed.wait(10)

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    starting = threading.Thread(target=TrackioSink("shop").start, args=(tmp_path, {}, 0))
    starting.start()
    assert inside.wait(10)
    print("the report")
    printed.set()
    starting.join()
    assert capsys.readouterr().out == "the report\n"


def test_no_conversation_leaves_where_none_are_asked_for(wandb, tmp_path):
    sinks = started(WandbSink("shop"), tmp_path)
    sinks.sample(1, [TrajectoryGroup.of("price", [conversation(0)])])
    sent(sinks, 1)
    assert wandb.rows == [{"train/step": 1, "train/reward_mean": 0.125}]


def test_a_sink_that_fails_later_is_logged_once_and_counted_and_the_others_go_on(wandb, tmp_path, caplog):
    pytest.importorskip("tensorboardX")
    sinks = Sinks([WandbSink("shop"), TensorBoardSink(tmp_path / "tb")])
    sinks.start(tmp_path, {})
    sinks.log({"step": 1, "reward_mean": 0.5})
    while not wandb.rows:
        time.sleep(0.001)
    wandb.broken = ConnectionError("the network is gone")
    for step in (2, 3, 4):
        sinks.log({"step": step, "reward_mean": 0.5})
    sinks.close(failed=True)
    assert sinks.failures == {"wandb": 3, "tensorboard": 0}
    assert caplog.text.count("wandb failed, training goes on: ConnectionError('the network is gone')") == 1
    assert "wandb failed 3 times; metrics.jsonl has every row" in caplog.text
    assert wandb.exit_codes == [1]
    assert [event[0] for event in events(tmp_path / "tb")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("module", "sink", "words"),
    [
        ("wandb", WandbSink("shop"), r'logging.wandb needs the package wandb(?s:.*)pip install ".*\[wandb\]"'),
        (
            "trackio",
            TrackioSink("shop"),
            r'logging.trackio needs the package trackio(?s:.*)\[trackio\]"',
        ),
        ("mlflow", MlflowSink("shop", "http://x"), r'logging.mlflow needs the package mlflow(?s:.*)\[mlflow\]"'),
        ("sqlalchemy", MlflowSink("shop"), r'logging.mlflow needs the package sqlalchemy(?s:.*)\[mlflow\]"'),
        ("tensorboardX", TensorBoardSink("tb"), r'logging.tensorboard needs .*tensorboardX(?s:.*)\[tensorboard\]"'),
    ],
)
def test_a_missing_package_is_said_at_the_start_with_what_to_install(monkeypatch, tmp_path, module, sink, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=words):
        Sinks([sink]).start(tmp_path, {})


def test_a_wandb_that_does_not_start_is_a_config_error_and_closes_what_was_opened(wandb, tmp_path):
    wandb.broken = RuntimeError("api_key not configured")
    closed = []
    earlier = Slow()
    earlier.close = lambda *, failed: closed.append(failed)
    with pytest.raises(ConfigError, match=r"api_key not configured(?s:.*)wandb login(?s:.*)WANDB_MODE=offline"):
        Sinks([earlier, WandbSink("shop")]).start(tmp_path, {})
    assert closed == [True]


def events(folder):
    """(step, tag, value) of every scalar in the folder's event files, read by the record format."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            found += [(event.step, value.tag, round(value.simple_value, 4)) for value in event.summary.value]
            if event.HasField("session_log"):
                found.append((event.step, "restart", event.session_log.status))
    return found


def test_tensorboard_event_files_hold_the_numbers(tmp_path):
    sinks = Sinks([TensorBoardSink(tmp_path / "tb")])
    sinks.start(tmp_path, {})
    sinks.log({"step": 1, "reward_mean": 0.25, "eval_success_rate": 0.5})
    sinks.close()
    assert events(tmp_path / "tb") == [(1, "train/reward_mean", 0.25), (1, "eval/success_rate", 0.5)]


def test_a_resumed_run_tells_tensorboard_to_forget_the_steps_after_its_checkpoint(tmp_path):
    sinks = Sinks([TensorBoardSink(tmp_path / "tb")])
    sinks.start(tmp_path, {}, start_step=2)
    sinks.log({"step": 3, "reward_mean": 0.5})
    sinks.close()
    assert events(tmp_path / "tb") == [(3, "restart", 1), (3, "train/reward_mean", 0.5)]


def test_a_run_that_was_killed_before_its_first_checkpoint_is_shown_by_tensorboard_once(tmp_path):
    sent(started(TensorBoardSink(tmp_path / "tb"), tmp_path), 1, 2)
    (first,) = (tmp_path / "tb").iterdir()
    sent(started(TensorBoardSink(tmp_path / "tb"), tmp_path), 1)
    first.unlink()
    assert events(tmp_path / "tb") == [(1, "restart", 1), (1, "train/reward_mean", 0.125)]


def test_a_log_dir_that_cannot_be_written_is_a_config_error(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"logging.tensorboard.log_dir is .*cannot be written"):
        Sinks([TensorBoardSink(tmp_path / "file" / "tb")]).start(tmp_path, {})
