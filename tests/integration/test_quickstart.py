"""The quickstart, with a random model in the real one's place: what it measures, writes and says."""

import contextlib
import io
import json
import shlex
import signal

import pytest

from stateset_agents.examples import quickstart
from stateset_agents.tracking.run_folder import read_metrics, read_status, read_trajectories


@pytest.fixture
def three_held_out(monkeypatch):
    """The first three of the shipped held-out scenarios; all of them take their time."""
    from stateset_agents.training import from_config

    whole = from_config.load_scenarios
    monkeypatch.setattr(
        from_config,
        "load_scenarios",
        lambda file, **given: whole(file, **given)[:3] if "heldout" in str(file) else whole(file, **given),
    )


def test_it_evaluates_trains_evaluates_again_and_shows_both(tmp_path, monkeypatch, capsys, three_held_out):
    monkeypatch.chdir(tmp_path)
    assert quickstart.main(["--model", "tiny", "--episodes", "16", "--samples", "2"]) == 0
    run = tmp_path / "runs" / "quickstart"
    out, err = capsys.readouterr()
    assert out == (run / "report.txt").read_text()
    parts = [
        "GRPO Agent Framework - Training Complete",
        "Agent saved to: runs/quickstart/final_model",
        "One conversation, before and after",
        "before: reward",
        "Held-out scenarios, 2 samples each, 95 % intervals",
        "answers  before",
        "answers  after",
        "The trained model is in runs/quickstart/final_model",
    ]
    assert [out.index(part) for part in parts] == sorted(out.index(part) for part in parts)
    stages = [
        "1/3  tiny on 3 held-out scenarios, untrained",
        "2/3  training",
        "step 1/1",
        "3/3  the same",
    ]
    assert [err.index(part) for part in stages] == sorted(err.index(part) for part in stages)
    data = json.loads((run / "quickstart.json").read_text())
    assert set(data["answers"]) == {"before", "after", "change"}
    assert len(read_metrics(run)) == 1
    evaluated = [row for row in read_trajectories(run) if row["phase"] == "eval"]
    assert [row["step"] for row in evaluated] == [0] * 6 + [1] * 6
    assert len({row["scenario_id"] for row in evaluated}) == 3
    assert read_status(run).state == "finished"


def test_a_second_quickstart_takes_the_next_folder_and_a_named_one_that_holds_a_run_is_refused(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart-2").mkdir()
    assert quickstart._free_folder().name == "quickstart-3"
    (tmp_path / "runs" / "quickstart" / "metrics.jsonl").touch()
    assert quickstart.main(["--model", "tiny", "--output-dir", "runs/quickstart"]) == 3
    assert "already holds a run" in capsys.readouterr().err


def test_an_interrupted_quickstart_is_continued_by_the_command_that_it_prints(tmp_path, monkeypatch, three_held_out):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "tiny", "--episodes", "32", "--samples", "1"]
    assert quickstart.main([*arguments, "--output-dir", "whole"]) == 0

    from stateset_agents.training.trainer import Trainer

    with monkeypatch.context() as patch:
        record = Trainer._record

        def interrupted(self, row):
            record(self, row)
            if row["step"] == 1:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(Trainer, "_record", interrupted)
        handler = signal.getsignal(signal.SIGINT)
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                assert quickstart.main([*arguments, "--output-dir", "run"]) == 75
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, handler if number == signal.SIGINT else signal.SIG_DFL)
    assert "stopped and saved at step 1 in run. To continue:" in stderr.getvalue()
    assert read_status(tmp_path / "run").state == "interrupted"
    command = shlex.split(stderr.getvalue().strip().splitlines()[-1])
    assert command[1:3] == ["-m", "stateset_agents.examples.quickstart"]
    assert quickstart.main(command[3:]) == 0
    whole, resumed = (json.loads((tmp_path / name / "quickstart.json").read_text()) for name in ("whole", "run"))
    for data in (whole, resumed, *(data[side] for data in (whole, resumed) for side in ("before", "after"))):
        del data["seconds"]
    assert whole == resumed
    models = [(tmp_path / name / "final_model" / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert models[0] == models[1]


def test_resume_needs_a_folder(capsys):
    with pytest.raises(SystemExit, match="2"):
        quickstart.main(["--resume"])
    assert "--resume continues the run in --output-dir: name it" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path, capsys):
    assert quickstart.main(["--model", "./nowhere", "--output-dir", str(tmp_path / "run")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "there is no model folder" in err
    assert "Traceback" not in err
