"""Sinks: right at the start or a config error; after that they cannot stop a run."""

import struct
import sys
from types import ModuleType, SimpleNamespace

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.tracking.sinks import Sinks, TensorBoardSink, WandbSink


class FakeWandb(ModuleType):
    """The client library at its seam: records calls, and misbehaves when told to."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.rows, self.metrics, self.exit_codes, self.broken = [], [], [], [], None

    def Settings(self, **settings):
        return settings

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


def test_a_resumed_run_goes_on_in_the_same_wandb_record(wandb, tmp_path):
    first = Sinks([WandbSink("shop")])
    first.start(tmp_path, {})
    state = first.state_dict()
    assert state == {"wandb": {"id": "abc123"}}

    second = Sinks([WandbSink("shop"), TensorBoardSink(tmp_path / "tb")])
    second.load_state_dict(state)
    second.sinks[0].start(tmp_path, {}, 2)
    assert (wandb.inits[0]["id"], wandb.inits[1]["id"]) == (None, "abc123")
    assert wandb.inits[1]["resume"] == "allow"


def test_a_sink_that_fails_later_is_logged_once_and_counted_and_the_others_go_on(wandb, tmp_path, caplog):
    pytest.importorskip("tensorboardX")
    sinks = Sinks([WandbSink("shop"), TensorBoardSink(tmp_path / "tb")])
    sinks.start(tmp_path, {})
    sinks.log({"step": 1, "reward_mean": 0.5})
    wandb.broken = ConnectionError("the network is gone")
    for step in (2, 3, 4):
        sinks.log({"step": step, "reward_mean": 0.5})
    assert sinks.failures == {"wandb": 3, "tensorboard": 0}
    assert caplog.text.count("wandb failed, training goes on: ConnectionError('the network is gone')") == 1
    sinks.close(failed=True)
    assert "wandb failed 3 times; metrics.jsonl has every row" in caplog.text
    assert wandb.exit_codes == [1]
    assert [event[0] for event in events(tmp_path / "tb")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("module", "sink", "words"),
    [
        ("wandb", WandbSink("shop"), r'logging.wandb needs the package wandb(?s:.*)pip install ".*\[wandb\]"'),
        ("tensorboardX", TensorBoardSink("tb"), r'logging.tensorboard needs .*tensorboardX(?s:.*)\[tensorboard\]"'),
    ],
)
def test_a_missing_package_is_said_at_the_start_with_what_to_install(monkeypatch, tmp_path, module, sink, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=words):
        Sinks([sink]).start(tmp_path, {})


def test_a_wandb_that_does_not_start_is_a_config_error_and_closes_what_was_opened(wandb, tmp_path):
    wandb.broken = RuntimeError("api_key not configured")
    earlier = SimpleNamespace(name="earlier", start=lambda *_: None, closed=[])
    earlier.close = lambda *, failed: earlier.closed.append(failed)
    with pytest.raises(ConfigError, match=r"api_key not configured(?s:.*)wandb login(?s:.*)WANDB_MODE=offline"):
        Sinks([earlier, WandbSink("shop")]).start(tmp_path, {})
    assert earlier.closed == [True]


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


def test_a_log_dir_that_cannot_be_written_is_a_config_error(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"logging.tensorboard.log_dir is .*cannot be written"):
        Sinks([TensorBoardSink(tmp_path / "file" / "tb")]).start(tmp_path, {})
