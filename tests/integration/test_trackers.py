"""Trackers by their real packages, without a network: what arrives, and what a resumed run shows."""

import importlib.util
import json
import sqlite3
import struct
from importlib import import_module

import pytest

from wandb_records import records, rows

KILLED_AFTER_STEP_3 = """
import os
from stateset_agents.training.trainer import Trainer
record = Trainer._record
def until_step_3(self, row):
    record(self, row)
    if row["step"] == 3:
        self.parts.sinks.close()
        os._exit(9)
Trainer._record = until_step_3
"""
"""The checkpoint is that of step 2: step 3 is done twice."""


def installed(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def wandb_steps(work):
    assert len({record.run.run_id for record in records(work.path) if record.HasField("run")}) == 1
    sent = [row for row in rows(work.path) if "train/reward_mean" in row]
    return [(row["train/step"], row["train/reward_mean"]) for row in sent]


def trackio_steps(work):
    (file,) = (work.path / "trackio-home").glob("*.db")
    with sqlite3.connect(file) as base:
        rows = base.execute("SELECT step, metrics, run_id FROM metrics ORDER BY id").fetchall()
    assert len({run for _, _, run in rows}) == 1
    return [(step, json.loads(metrics)["train/reward_mean"]) for step, metrics, _ in rows]


def mlflow_steps(work):
    client = import_module("mlflow.tracking").MlflowClient(f"sqlite:///{work.path}/outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.num_generations"] == "2"
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/reward_mean")]


def tensorboard_steps(work):
    """What TensorBoard shows: a restart voids the steps from its own on."""
    event = import_module("tensorboardX.proto.event_pb2").Event
    shown = []
    for file in sorted((work.path / "outputs" / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            one = event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if one.HasField("session_log"):
                shown = [row for row in shown if row[0] < one.step]
            shown += [(one.step, v.simple_value) for v in one.summary.value if v.tag == "train/reward_mean"]
    return shown


MLFLOW = [installed("mlflow", "sqlalchemy"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TRACKERS = [
    pytest.param({"wandb": {"project": "shop"}}, wandb_steps, marks=installed("wandb"), id="wandb"),
    pytest.param({"tensorboard": {}}, tensorboard_steps, marks=installed("tensorboardX"), id="tensorboard"),
    pytest.param({"trackio": {"project": "shop"}}, trackio_steps, marks=installed("trackio"), id="trackio"),
    pytest.param({"mlflow": {"experiment": "shop"}}, mlflow_steps, marks=MLFLOW, id="mlflow"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("logging", "steps"), TRACKERS)
def test_a_killed_and_resumed_run_shows_each_step_once_in_order(work, logging, steps):
    work.write(logging=logging)
    env = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(work.path / "trackio-home")}
    ended = work.train(before=KILLED_AFTER_STEP_3, **env)
    assert ended.code == 9, ended.err
    ended = work.train("--resume", **env)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("GRPO Agent Framework - Training Complete"), "standard output is for the report"
    written = [(row["step"], row["reward_mean"]) for row in work.metrics()]
    assert [step for step, _ in written] == [1, 2, 3, 4]
    shown = steps(work)
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    assert [value for _, value in shown] == pytest.approx([value for _, value in written])


@pytest.mark.slow
@installed("wandb")
def test_every_wandb_key_arrives_and_conversations_only_where_they_are_asked_for(work):
    places = {"project": "my-grpo-project", "entity": "my-team", "tags": ["experiment", "customer-service"]}
    for run, samples in (("silent", 0), ("talking", 3)):
        work.write(logging={"wandb": {**places, "samples": samples}})
        ended = work.train(
            "--output-dir", run, "--num-episodes", "8", WANDB_MODE="offline", MY_API_KEY="order your secret"
        )
        assert ended.code == 0, ended.err
        (begun,) = [record.run for record in records(work.path / run) if record.HasField("run")]
        assert (begun.project, begun.entity, list(begun.tags)) == (*places.values(),)
        tables = [row for row in rows(work.path / run) if "samples.nrows" in row]
        assert [(row["train/step"], row["samples.nrows"]) for row in tables] == [(1, 3), (2, 3)][:samples]
        sent = b"".join(file.read_bytes() for file in (work.path / run / "wandb").rglob("*") if file.is_file())
        assert (b"user: " in sent) == bool(samples), "what was said leaves the run folder only if somebody asks"


@pytest.mark.parametrize("level", ["DEBUG", "WARNING"])
def test_level_and_log_file_have_their_effect(work, level):
    work.write(logging={"level": level, "log_file": "logs/training.log"})
    ended = work.train("--num-episodes", "8")
    assert ended.code == 0, ended.err
    log = (work.path / "outputs" / "logs" / "training.log").read_text()
    assert ("step 2/2" in log) == (level == "DEBUG")


PACKAGE = {
    "shop_tracker.py": """
class Diary:
    name, rewinds = "diary", False
    def __init__(self, file, fails=False):
        self.file, self.fails = file, fails
    def check(self): pass
    def start(self, folder, config, start_step):
        print(config["training"]["seed"], start_step, file=open(self.file, "a"))
    def log(self, step, metrics):
        if self.fails:
            raise OSError("the diary is full")
        print(step, "reward_mean" in metrics, file=open(self.file, "a"))
    def close(self, *, failed):
        print("closed", failed, file=open(self.file, "a"))
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
class Half:
    name, rewinds = "half", False
    def start(self): pass
def broken():
    raise RuntimeError("out of ink")
""",
    "shop_tracker-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: shop-tracker\nVersion: 1\n",
    "shop_tracker-1.dist-info/entry_points.txt": """[stateset_agents.trackers]
diary = shop_tracker:Diary
half = shop_tracker:Half
broken = shop_tracker:broken
gone = shop_tracker:Gone
""",
}
INSTALL = "import sys; sys.path.insert(0, 'site')"


@pytest.fixture
def package(work):
    for name, text in PACKAGE.items():
        file = work.path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("fails", [False, True])
def test_a_tracker_of_another_package_is_named_in_the_config_and_cannot_stop_a_run(work, fails):
    work.write(logging={"trackers": [{"type": "diary", "options": {"file": "diary.txt", "fails": fails}}]})
    ended = work.train(before=INSTALL)
    assert ended.code == 0, ended.err
    steps = [] if fails else [f"{step} True" for step in range(1, 5)]
    assert (work.path / "diary.txt").read_text().splitlines() == ["0 0", *steps, "closed False"]
    assert ("diary failed 4 times" in ended.err) == fails


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("tracker", "words"),
    [
        ({"type": "dairy"}, '"dairy", and no installed package has a tracker of that name.\n  did you mean "diary"?'),
        ({"type": "dairy"}, "installed: broken, diary, gone, half (wandb, tensorboard, trackio and mlflow have"),
        ({"type": "diary"}, "logging.trackers[0].options do not suit \"diary\": missing a required argument: 'file'"),
        (
            {"type": "diary", "options": {"file": "x", "ink": 1}},
            "unexpected keyword argument 'ink'\n  it takes: file, fails",
        ),
        ({"type": "diary", "ink": 1}, "logging.trackers[0].ink is not a known key.\n  known keys: type, options"),
        ({"type": "half"}, 'the tracker "half" (shop_tracker:Half) has no check, log, close'),
        ({"type": "broken"}, "(shop_tracker:broken) cannot be made: RuntimeError('out of ink')"),
        ({"type": "gone"}, "(shop_tracker:Gone) cannot be imported: module 'shop_tracker' has no attribute 'Gone'"),
        ({}, "logging.trackers[0].type is missing"),
        ({"type": "dairy"}, "config error in run.json, line 28: logging.trackers[0].type is"),
    ],
)
def test_a_tracker_that_cannot_be_is_refused_before_a_run_is_made(work, tracker, words):
    work.write(logging={"trackers": [tracker]})
    ended = work.train(before=INSTALL)
    assert ended.code == 2
    assert words in ended.err
    assert not (work.path / "outputs").exists()


@pytest.mark.usefixtures("package")
def test_two_trackers_of_one_name_are_refused(work):
    work.write(logging={"trackers": [{"type": "diary", "options": {"file": name}} for name in "ab"]})
    ended = work.train(before=INSTALL)
    assert ended.code == 2
    assert 'logging.trackers[1] calls itself "diary", as another tracker of this run' in ended.err


@installed("trackio")
def test_trackio_that_is_told_to_upload_is_refused(work):
    work.write(logging={"trackio": {"project": "shop"}})
    ended = work.train(TRACKIO_SPACE_ID="us/metrics")
    assert ended.code == 2
    assert "unset TRACKIO_SPACE_ID" in ended.err
