"""Which checkpoint a path means, which stay and which go."""

import os
from pathlib import Path

import pytest

from stateset_agents.checkpoints import (
    clean_stale_temporaries,
    latest_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    resolve_checkpoint,
    step_folder,
    write_checkpoint,
)
from stateset_agents.core.errors import CheckpointError


def write_steps(folder: Path, *steps: int) -> Path:
    for step in steps:
        write_checkpoint(step_folder(folder, step), records={"trainer": {"step": step}})
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_steps(tmp_path / "run" / "checkpoints", 9, 10, 100)
    return tmp_path / "run"


def test_steps_are_ordered_by_number_and_not_by_name(run):
    assert [step for step, _ in list_checkpoints(run / "checkpoints")] == [9, 10, 100]
    assert latest_checkpoint(run / "checkpoints") == (run / "checkpoints" / "step-100", [])


def test_no_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "none") == (None, [])
    assert prune_checkpoints(tmp_path / "none", 1) == []
    assert clean_stale_temporaries(tmp_path / "none") == []


def test_a_run_means_its_final_model_once_that_is_complete(run):
    assert resolve_checkpoint(run) == run / "checkpoints" / "step-100"
    assert resolve_checkpoint(run / "checkpoints") == run / "checkpoints" / "step-100"
    assert resolve_checkpoint(run / "checkpoints" / "step-9") == run / "checkpoints" / "step-9"
    write_checkpoint(run / "final_model", records={"agent": {}})
    assert resolve_checkpoint(run) == run / "final_model"
    assert resolve_checkpoint(str(run / "final_model")) == run / "final_model"


def test_a_damaged_final_model_is_passed_over_and_said(run, caplog):
    write_checkpoint(run / "final_model", records={"agent": {}})
    (run / "final_model" / "agent.json").write_text("[]")
    assert resolve_checkpoint(run) == run / "checkpoints" / "step-100"
    assert "passed over" in caplog.text
    assert "agent.json" in caplog.text


def test_a_damaged_checkpoint_that_was_named_is_an_error_and_not_another_one(run):
    (run / "checkpoints" / "step-100" / "trainer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"step-100 is damaged: trainer\.json"):
        resolve_checkpoint(run / "checkpoints" / "step-100")


def test_nothing_whole_lists_every_reason(run):
    for step in (9, 10, 100):
        (run / "checkpoints" / f"step-{step}" / "trainer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint that is whole.*step-100.*step-10 .*step-9 "):
        resolve_checkpoint(run)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "is no run and no checkpoint"),
        (lambda path: (path / "checkpoints").mkdir(parents=True), "stopped before its first checkpoint"),
        (lambda path: path.mkdir() or (path / "config.json").write_text("{}"), "a model folder, not a checkpoint"),
        (lambda path: (path / ".tmp-step-1-77").mkdir(parents=True), "a checkpoint that was not finished"),
    ],
)
def test_a_path_that_is_no_run_says_what_it_is(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(CheckpointError, match=message):
        resolve_checkpoint(tmp_path / "x")


def test_a_folder_of_runs_names_them_the_newest_last(tmp_path):
    (tmp_path / "notes").mkdir()
    for age, name in enumerate(("c", "a", "b")):
        write_steps(tmp_path / name / "checkpoints", 1)
        os.utime(tmp_path / name, (age, age))
    with pytest.raises(
        CheckpointError, match=rf"holds runs; name one of them: {tmp_path}/c, {tmp_path}/a, {tmp_path}/b$"
    ):
        resolve_checkpoint(tmp_path)
    for age in range(10, 20):
        (tmp_path / f"r{age}" / "final_model").mkdir(parents=True)
        os.utime(tmp_path / f"r{age}", (age, age))
    with pytest.raises(CheckpointError, match=rf"the newest of 13: {tmp_path}/r12, .*{tmp_path}/r19$"):
        resolve_checkpoint(tmp_path)


def test_a_step_that_is_not_there_tells_of_those_that_are(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"step-5: no such folder; there are step-9, step-10, step-100$"):
        resolve_checkpoint(run / "checkpoints" / "step-5")
    write_steps(tmp_path / "one", 3)
    with pytest.raises(CheckpointError, match=r"no such folder; there is step-3$"):
        resolve_checkpoint(tmp_path / "one" / "step-5")
    with pytest.raises(CheckpointError, match=r"no such folder$"):
        resolve_checkpoint(tmp_path / "step-5")
    write_steps(tmp_path / "many", *range(1, 10))
    with pytest.raises(CheckpointError, match=r"the newest of 9 are step-2, step-3, .*, step-9$"):
        resolve_checkpoint(tmp_path / "many" / "step-50")


def test_pruning_keeps_the_newest_and_what_is_protected(tmp_path):
    folder = write_steps(tmp_path, 1, 2, 3, 4, 5)
    deleted = prune_checkpoints(folder, 2, protect=[folder / "step-1"])
    assert names(folder) == ["step-1", "step-4", "step-5"]
    assert [path.name for path in deleted] == ["step-3", "step-2"]


def test_an_incomplete_checkpoint_does_not_count_as_one_that_is_kept(tmp_path):
    folder = write_steps(tmp_path, 1, 2, 3)
    (folder / "step-3" / "trainer.json").unlink()
    prune_checkpoints(folder, 1)
    assert names(folder) == ["step-2", "step-3"]
    assert latest_checkpoint(folder)[0] == folder / "step-2"


def test_the_newest_checkpoint_cannot_be_pruned_away(tmp_path):
    with pytest.raises(ValueError, match="keep must be >= 1"):
        prune_checkpoints(write_steps(tmp_path, 1), 0)


def leave(folder: Path, *left: str) -> None:
    for name in left:
        (folder / name).mkdir()
        (folder / name / "half").write_text("x")


def test_leftovers_go_whoever_has_the_process_id_by_now(tmp_path):
    """Process 1 always lives; in a container most numbers are small."""
    folder = write_steps(tmp_path, 1)
    leave(folder, ".tmp-step-2-1", ".trash-step-0-1", f".tmp-step-2-{os.getpid()}", ".tmp-notes")
    clean_stale_temporaries(folder)
    assert names(folder) == [".tmp-notes", "step-1"]


def test_a_save_removes_what_was_left_half_written_of_its_target_and_nothing_else(tmp_path):
    """A final model lies among files of others, where nobody may tidy up."""
    leave(tmp_path, ".tmp-final-1", f".tmp-final-{os.getpid()}", ".tmp-final-model-1", ".tmp-final-", ".old-notes")
    write_checkpoint(tmp_path / "final", records={"agent": {}})
    assert names(tmp_path) == sorted([".tmp-final-model-1", ".tmp-final-", ".old-notes", "final"])


def test_a_replacement_that_was_cut_off_between_its_renames_is_read_and_finished(tmp_path):
    write_checkpoint(tmp_path / "final_model", records={"agent": {"version": 1}})
    (tmp_path / "final_model").rename(tmp_path / ".old-final_model")
    assert read_checkpoint(tmp_path / "final_model").record("agent") == {"version": 1}
    assert resolve_checkpoint(tmp_path).name == ".old-final_model"
    assert resolve_checkpoint(tmp_path / "final_model").name == ".old-final_model"
    clean_stale_temporaries(tmp_path)
    assert names(tmp_path) == ["final_model"]
    assert resolve_checkpoint(tmp_path) == tmp_path / "final_model"


def test_a_predecessor_that_was_left_behind_goes_when_its_successor_is_there(tmp_path):
    write_checkpoint(tmp_path / "final_model", records={"agent": {"version": 1}})
    (tmp_path / "final_model").rename(tmp_path / ".old-final_model")
    write_checkpoint(tmp_path / "final_model", records={"agent": {"version": 2}})
    assert names(tmp_path) == ["final_model"]
    assert read_checkpoint(tmp_path / "final_model").record("agent") == {"version": 2}


def test_a_linked_step_is_not_a_checkpoint_of_this_run(tmp_path):
    folder = write_steps(tmp_path / "a", 1)
    (folder / "step-2").symlink_to(folder / "step-1")
    assert [step for step, _ in list_checkpoints(folder)] == [1]


def test_a_run_that_went_on_after_its_final_model_is_known_by_its_later_checkpoint(tmp_path: Path) -> None:
    """Fails when a complete final model always wins: it would be the one from before the run was resumed."""
    write_checkpoint(tmp_path / "final_model", records={"progress": {"step": 4}})
    write_checkpoint(tmp_path / "checkpoints" / "step-4", records={"trainer": {}})
    assert resolve_checkpoint(tmp_path) == tmp_path / "final_model"
    write_checkpoint(tmp_path / "checkpoints" / "step-9", records={"trainer": {}})
    assert resolve_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-9"
