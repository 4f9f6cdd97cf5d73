"""The run folder: never overwritten, one writer, whole files for every reader."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stateset_agents.core.errors import RunFolderError
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.tracking import RunFolder, disk, read_metrics, read_status, read_trajectories, run_folder

CONFIG = "training:\n  num_episodes: 8\n"


def a_group(rewards=(0.25, 0.75)):
    row = TokenRow()
    row.append_context([5, 6])
    row.append_sampled([7], [-0.5], version=2)
    good = [
        MultiTurnTrajectory("returns", key=f"k{i}", reward=r, rows=[row], turns=[ConversationTurn("assistant", "Yes.")])
        for i, r in enumerate(rewards)
    ]
    failed = MultiTurnTrajectory("returns", key="kx", outcome=Outcome.REWARD, error="division by zero")
    return TrajectoryGroup.of("returns", [*good, failed])


def python(code, *args, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True, env=os.environ, **kwargs
    )


def test_a_new_run_has_its_config_its_logs_and_a_status(tmp_path):
    path = tmp_path / "out" / "run"
    with RunFolder.create(path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1, "episodes": 8, "reward_mean": 0.5, "kl": float("nan")})
        assert run.config_yaml == CONFIG
        assert run.checkpoints_dir == path / "checkpoints"
        assert run.final_model_dir == path / "final_model"
        assert run.status.state == "running"
    assert sorted(p.name for p in path.iterdir()) == [
        "checkpoints", "config.yaml", "metrics.jsonl", "run.lock", "status.json", "trajectories.jsonl",
    ]  # fmt: skip
    assert (path / "metrics.jsonl").read_text() == '{"step": 1, "episodes": 8, "reward_mean": 0.5, "kl": null}\n'


def test_only_the_owner_can_look_into_a_run(tmp_path):
    path = tmp_path / "run"
    with RunFolder.create(path, config_yaml=CONFIG) as run:
        run.log_trajectories(1, [a_group()])
    assert path.stat().st_mode & 0o777 == 0o700
    files = [p for p in path.iterdir() if p.is_file()]
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}


def test_a_second_run_in_the_folder_is_refused_with_both_ways_out_and_changes_nothing(tmp_path):
    path = tmp_path / "run"
    with RunFolder.create(path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1})
        run.set_status("finished")
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create(path, config_yaml="other: 1\n")
    assert all(part in str(caught.value) for part in (str(path), "--resume", "--output-dir"))
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("name", ["config.yaml", "final_model", "checkpoints", "trajectories.jsonl"])
def test_files_that_a_run_would_overwrite_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match=f"holds {name}, which this run would overwrite"):
        RunFolder.create(tmp_path, config_yaml=CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_unrelated_files_and_the_mode_of_a_folder_that_was_there_are_left_alone(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path, config_yaml=CONFIG).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "does not exist"),
    (lambda path: path.write_text("x"), "is a file, not a folder"),
    (lambda path: path.mkdir(), "holds no run: status.json, config.yaml, metrics.jsonl missing"),
])  # fmt: skip
def test_a_path_that_is_no_run_cannot_be_opened(tmp_path, make, words):
    make(tmp_path / "run")
    with pytest.raises(RunFolderError, match=words):
        RunFolder.open(tmp_path / "run")


def test_opening_a_run_to_read_it_takes_no_lock_and_changes_nothing(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as writer:
        writer.log_metrics({"step": 1})
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"st')
        before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir() if p.is_file()}
        reader = RunFolder.open(tmp_path)
        assert reader.config_yaml == CONFIG
        assert reader.status.state == "running"
        assert read_metrics(tmp_path) == [{"step": 1}]
        assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir() if p.is_file()} == before


def test_no_file_of_a_run_holds_a_secret_that_a_conversation_or_an_error_told(tmp_path, monkeypatch):
    """Mutation: what a tool said stands in trajectories.jsonl, and the error that ended the run in status.json."""
    monkeypatch.setenv("SHOP_PASSWORD", 'open"sesame')
    told = ConversationTurn("tool", 'shop:open"sesame refused', {"why": ['open"sesame']})
    episode = MultiTurnTrajectory("s", reward=1.0, turns=[told], error='open"sesame')
    with RunFolder.create(tmp_path / "run", config_yaml=CONFIG) as run:
        run.log_trajectories(1, [TrajectoryGroup.of("s", [episode])])
        run.set_status("failed", 'OSError: open"sesame refused')
    files = [file for file in run.path.iterdir() if file.is_file()]
    assert not [file.name for file in files if "sesame" in file.read_text()]
    (row,) = read_trajectories(run.path)
    assert (row["turns"][0]["content"], row["error"]) == ("shop:*** refused", "***")
    assert run.status.message == "OSError: *** refused"


def test_trajectories_are_logged_with_their_place_and_failures_with_their_reason(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        run.log_trajectories(3, [a_group()], tokens=True)
        run.log_trajectories(3, [a_group((1.0,))], phase="eval")
    rows = list(read_trajectories(tmp_path))
    assert [(r["step"], r["phase"], r["group"], r["outcome"], r["reward"]) for r in rows] == [
        (3, "train", 0, "ok", 0.25),
        (3, "train", 0, "ok", 0.75),
        (3, "train", 0, "reward", None),
        (3, "eval", 0, "ok", 1.0),
        (3, "eval", 0, "reward", None),
    ]
    assert rows[0]["rows"][0] == {
        "ids": [5, 6, 7],
        "mask": [0, 0, 1],
        "logprobs": [0.0, 0.0, -0.5],
        "versions": [-1, -1, 2],
    }
    assert rows[2]["error"] == "division by zero"
    assert "rows" not in rows[3]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_and_goes_on(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        for step in (1, 2, 3):
            run.log_trajectories(step, [a_group()])
            run.log_metrics({"step": step, "try": 1})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "tr')

    with RunFolder.open(tmp_path) as run:
        run.truncate(2)
        assert (run.status.state, run.status.step) == ("running", 2)
        run.log_metrics({"step": 3, "try": 2})
        run.set_status("finished")
    assert read_metrics(tmp_path) == [{"step": 1, "try": 1}, {"step": 2, "try": 1}, {"step": 3, "try": 2}]
    assert [r["step"] for r in read_trajectories(tmp_path)] == [1, 1, 1, 2, 2, 2]
    assert (read_status(tmp_path).state, read_status(tmp_path).step) == ("finished", 3)


def test_the_status_remembers_where_a_run_was_taken_up_again(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        for step in range(1, 6):
            run.log_metrics({"step": step})
    for step in (4, 2, 3, 3):
        with RunFolder.open(tmp_path) as run:
            run.truncate(step)
            run.log_metrics({"step": step + 1})
    assert read_status(tmp_path).resumed_at == [2, 3]  # what lay after step 2 is forgotten, with the start at 4
    with RunFolder.open(tmp_path) as run:
        run.truncate(0)
    assert read_status(tmp_path).resumed_at == []


def test_half_a_character_in_a_message_is_no_reason_to_say_nothing(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1})
        run.set_status("failed", "\ud83d was left of a smile")
    assert read_status(tmp_path).message == "\ud83d was left of a smile"


def broken_off(folder, error, before):
    """A run that an error ends after what `before` does with it."""
    with RunFolder.create(folder, config_yaml=CONFIG) as run:
        before(run)
        raise error


@pytest.mark.parametrize(("error", "state"), [(OSError("gone"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_an_error_that_leaves_a_running_run_is_its_status(tmp_path, error, state):
    with pytest.raises(type(error)):
        broken_off(tmp_path, error, lambda run: run.log_metrics({"step": 1}))
    assert (read_status(tmp_path).state, read_status(tmp_path).message) == (state, f"{type(error).__name__}: {error}")
    before = (tmp_path / "status.json").read_bytes()
    with pytest.raises(ValueError, match="elsewhere"), RunFolder.open(tmp_path):
        raise ValueError("elsewhere")
    assert (tmp_path / "status.json").read_bytes() == before


def test_a_run_that_ends_before_it_recorded_anything_leaves_no_trace(tmp_path):
    """Mutation: it stays, and the same command is refused for a folder that holds a run."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for folder, left in (("new/run", None), ("mine", {"notes.txt", "run.lock"})):
        for _ in range(2):
            with pytest.raises(ValueError, match="early"):
                broken_off(
                    tmp_path / folder, ValueError("early"), lambda run: run.write_text("started_from.txt", "x\n")
                )
        path = tmp_path / folder
        assert (left is None and not path.exists()) or {file.name for file in path.iterdir()} == left


def test_a_run_that_is_said_to_have_failed_stays_though_it_recorded_nothing(tmp_path):
    with pytest.raises(ValueError, match="early"):
        broken_off(tmp_path, ValueError("early"), lambda run: run.set_status("failed", "the model is broken"))
    assert read_status(tmp_path).message == "the model is broken"


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_run_that_ended_before_its_first_step_gives_way_to_the_next(tmp_path, state):
    """Mutation: what it left stays, and its conversations are among those of the next run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with RunFolder.create(tmp_path / "run", config_yaml=CONFIG) as run:
        run.write_text("started_from.txt", "elsewhere\n")
        run.log_trajectories(1, [a_group()])
        run.set_status(state, "the judge did not answer")
    RunFolder.require_free(tmp_path / "run")
    with RunFolder.create(tmp_path / "run", config_yaml="other: 1\n") as run:
        assert run.config_yaml == "other: 1\n"
        assert list(read_trajectories(tmp_path / "run")) == []
        assert not (tmp_path / "run" / "started_from.txt").exists()
        assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
        assert run.status.state == "running"


def log_a_step(run):
    run.log_metrics({"step": 1})


@pytest.mark.parametrize(
    ("state", "before"),
    [
        ("running", lambda run: None),  # perhaps it runs on another machine
        ("finished", lambda run: None),
        ("failed", log_a_step),
        ("failed", lambda run: (run.checkpoints_dir / "step-0").mkdir()),
        ("failed", lambda run: run.final_model_dir.mkdir()),
        ("failed", lambda run: (log_a_step(run), run.close(), (run.path / "metrics.jsonl").write_text(""))),
    ],
)
def test_a_run_that_has_something_does_not_give_way(tmp_path, state, before):
    with RunFolder.create(tmp_path / "run", config_yaml=CONFIG) as run:
        before(run)
        run.set_status(state)
    for begin in (RunFolder.require_free, lambda path: RunFolder.create(path, config_yaml=CONFIG)):
        with pytest.raises(RunFolderError, match="already holds a run"):
            begin(tmp_path / "run")


def test_a_folder_is_looked_at_before_a_run_begins_there_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    RunFolder.require_free(tmp_path / "new" / "run")
    RunFolder.require_free(tmp_path)
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(RunFolderError, match="--output-dir"):
            RunFolder.require_free(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    RunFolder.create(tmp_path / "run", config_yaml=CONFIG).close()
    with pytest.raises(RunFolderError, match=r"(?s)already holds a run.*  do as you like"):
        RunFolder.require_free(tmp_path / "run", go_on="do as you like")


def test_a_step_whose_evaluation_was_given_up_keeps_its_conversations_and_loses_its_metrics(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        for step in (1, 2):
            run.log_trajectories(step, [a_group()])
            run.log_trajectories(step, [a_group()], phase="eval")
            run.log_metrics({"step": step})
        run.truncate(2, evaluated=False)
    assert read_metrics(tmp_path) == [{"step": 1}]
    places = [(row["step"], row["phase"]) for row in read_trajectories(tmp_path)]
    assert places == [(1, "train")] * 3 + [(1, "eval")] * 3 + [(2, "train")] * 3


def test_truncating_to_step_0_starts_the_logs_afresh(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1})
        run.truncate(0)
        assert read_metrics(tmp_path) == []


def test_sync_gives_the_length_of_each_log_for_the_checkpoint(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1})
        assert run.sync() == {"metrics.jsonl": 12, "trajectories.jsonl": 0}


def test_two_processes_cannot_write_to_one_run(tmp_path):
    hold = (
        "import sys; from stateset_agents.tracking import RunFolder\n"
        "run = RunFolder.create(sys.argv[1], config_yaml='a: 1')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    holder = python(hold, tmp_path, stdin=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == "ready\n"
        run = RunFolder.open(tmp_path)
        for write in (lambda: run.truncate(0), lambda: run.log_metrics({"step": 1}), lambda: run.set_status("failed")):
            with pytest.raises(RunFolderError, match=f"being written by process {holder.pid}"):
                write()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        run.log_metrics({"step": 1})  # the kernel gave the lock back
        run.close()
    finally:
        holder.kill()
        holder.communicate()


def test_of_many_processes_that_begin_a_run_at_once_exactly_one_does(tmp_path):
    race = (
        "import sys, time; from stateset_agents.tracking import RunFolder\n"
        "from stateset_agents.core.errors import RunFolderError\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n    run = RunFolder.create(sys.argv[1], config_yaml=sys.argv[3]); print('won'); time.sleep(1)\n"
        "except RunFolderError as error: print('refused' if '--output-dir' in str(error) else error)"
    )
    start = time.time() + 1.5
    racers = [python(race, tmp_path / "run", start, f"n: {i}") for i in range(4)]
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(answers) == ["refused", "refused", "refused", "won"]
    assert (tmp_path / "run" / "config.yaml").read_text() == f"n: {answers.index('won')}"


def test_a_run_that_came_and_went_between_the_look_and_the_lock_is_not_overwritten(tmp_path, monkeypatch):
    real_lock = run_folder.FolderLock

    def late_lock(path):
        monkeypatch.setattr(run_folder, "FolderLock", real_lock)
        RunFolder.create(path.parent, config_yaml="the other's: 1\n").close()
        return real_lock(path)

    monkeypatch.setattr(run_folder, "FolderLock", late_lock)
    with pytest.raises(RunFolderError, match="already holds a run"):
        RunFolder.create(tmp_path, config_yaml=CONFIG)
    assert (tmp_path / "config.yaml").read_text() == "the other's: 1\n"


def test_the_same_process_cannot_write_twice_either(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG), pytest.raises(RunFolderError, match="this very process"):
        RunFolder.open(tmp_path).lock()
    RunFolder.open(tmp_path).lock()


def test_a_path_below_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="is a file, not a folder"):
            RunFolder.create(path, config_yaml=CONFIG)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that refuses new folders")
def test_a_file_system_that_refuses_new_folders_is_refused_in_words():
    with pytest.raises(RunFolderError, match="/proc/run"):
        RunFolder.create("/proc/run", config_yaml=CONFIG)


@pytest.mark.parametrize(("code", "words"), [
    (errno.EROFS, "(?s)cannot be written .*choose a folder that you may write with --output-dir"),
    (errno.EACCES, "(?s)cannot be written .*choose a folder that you may write with --output-dir"),
    (errno.ENOSPC, "(?s)the disk is full: .*free some space"),
])  # fmt: skip
def test_a_disk_that_refuses_the_first_file_is_refused_in_words_and_leaves_no_half_run(
    tmp_path, monkeypatch, code, words
):
    path = tmp_path / "run"

    def refuse(target, text, *, durable=True):
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr("stateset_agents.tracking.status.replace_text", refuse)
    with pytest.raises(RunFolderError, match=words):
        RunFolder.create(path, config_yaml=CONFIG)
    monkeypatch.undo()
    assert [p.name for p in path.iterdir()] == ["run.lock"]
    RunFolder.create(path, config_yaml=CONFIG).close()


def test_a_disk_that_fills_up_during_the_run_says_so_and_keeps_whole_lines(tmp_path, monkeypatch):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        run.log_metrics({"step": 1})

        def full(fd, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunFolderError, match=r"the disk is full.*\n.*--resume") as caught:
            run.log_metrics({"step": 2})
        monkeypatch.undo()
        assert "training.keep_checkpoints, or a larger save_steps under TRL" in str(caught.value)
        assert "a run under TRL begins anew" in str(caught.value)
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_replaced_file_is_whole_or_old_when_the_write_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.txt"
    disk.replace_text(path, "old")

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        disk.replace_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]


def test_the_heartbeat_moves_at_most_every_few_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("stateset_agents.tracking.run_folder.time.monotonic", lambda: clock[0])
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        inode = (tmp_path / "status.json").stat().st_ino
        clock[0] += 4.9
        run.heartbeat()
        assert (tmp_path / "status.json").stat().st_ino == inode
        clock[0] += 0.2
        run.heartbeat()
        assert (tmp_path / "status.json").stat().st_ino != inode


def test_a_status_that_does_not_parse_reads_as_none(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "run')
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text(json.dumps({"something": "else"}))
    assert read_status(tmp_path) is None


@pytest.mark.parametrize("row", [{}, {"step": None}, {"step": "1"}, {"step": True}, {"step": 1.0}])
def test_metrics_without_a_whole_step_are_a_mistake_of_the_caller(tmp_path, row):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run, pytest.raises(TypeError, match="step"):
        run.log_metrics(row)


def test_a_report_is_written_whole_beside_the_logs(tmp_path):
    with RunFolder.create(tmp_path, config_yaml=CONFIG) as run:
        assert run.write_text("report.txt", "Episodes: 8\n") == tmp_path / "report.txt"
        run.write_text("report.txt", "Episodes: 16 ± 0\n")
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == "Episodes: 16 ± 0\n"
    assert not list(tmp_path.glob(".*"))


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("stateset_agents.tracking.lock.fcntl.flock", no_locks)
    RunFolder.create(tmp_path / "run", config_yaml=CONFIG).close()
    assert "nothing stops a second run from writing here" in caplog.text
