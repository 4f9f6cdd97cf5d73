"""A run that was stopped, however it was stopped, ends as an undisturbed one does: to the byte."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STOP_AT = """
import os, signal
from stateset_agents.training import trainer
record = trainer.Trainer._record
def stopping(self, row):
    record(self, row)
    if row["step"] == {step}:
        os.kill(os.getpid(), {number})
trainer.Trainer._record = stopping
"""
"""Makes a command send itself a signal right after a step was logged: a moment that a clock would not meet."""

LORA = {"training__lora": {"r": 4, "alpha": 8}, "training__lr_schedule": "linear"}
EVALUATED = {"training__eval_every": 4, "training__eval_samples": 1, "training__early_stopping": True}


WAIT_IN_STEP_2 = """
import os, time
from stateset_agents.training import trainer
learn = trainer.Trainer._complete
async def waiting(self, row):
    if self.steps == 2:
        os.mkdir("in-step-2")
        while not os.path.exists("go"):
            time.sleep(0.01)
    await learn(self, row)
trainer.Trainer._complete = waiting
"""

KILLED_WHILE_LOADING = """
import os, signal
from stateset_agents.training import trainer
trainer.Trainer.prepare = lambda self, *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_AT_ITS_FIRST_WORD = """
import os, signal
from stateset_agents.training import execution
execution.announce = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""

SCENARIOS_WITHOUT_REFUND = [
    {"id": "price", "user_responses": ["What does it cost?", "Thanks."]},
    {"id": "order", "user_responses": ["Where is my order?", "And when does it come?"]},
]


def stop_at(step: int, number: int) -> str:
    return STOP_AT.format(step=step, number=number)


def tensors(folder: Path) -> dict[str, bytes]:
    """Weights, adapters and optimizer slots of a checkpoint or final model."""
    found = {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    assert found
    return found


def undisturbed(work, **changes) -> None:
    """A run in `whole` that nothing stops."""
    work.write(**changes)
    ended = work.train("--output-dir", "whole")
    assert ended.code == 0, ended.err


def assert_same(work, run: str = "outputs") -> None:
    assert work.metrics(run) == work.metrics("whole")
    for part in ("final_model", "checkpoints/step-4"):
        assert tensors(work.path / run / part) == tensors(work.path / "whole" / part)
    assert {file.name for file in (work.path / run / "checkpoints/step-4").iterdir()} >= {"optimizer.safetensors"}
    played = [
        [
            (row["step"], row["phase"], row["key"], [turn["content"] for turn in row["turns"]])
            for row in map(json.loads, (work.path / name / "trajectories.jsonl").read_text().splitlines())
        ]
        for name in (run, "whole")
    ]
    assert played[0] == played[1]


@pytest.mark.parametrize("changes", [{}, LORA, EVALUATED], ids=["full", "lora", "evaluated"])
def test_a_run_that_ctrl_c_stopped_ends_as_if_nothing_had_happened(work, changes):
    undisturbed(work, **changes)
    assert len({json.dumps(row["loss"]) for row in work.metrics("whole")}) > 1
    ended = work.train(before=stop_at(1, signal.SIGINT))
    assert ended.code == 75, ended.err
    assert work.status()["state"] == "interrupted"
    assert [file.name for file in (work.path / "outputs" / "checkpoints").iterdir()] == ["step-1"]
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "resumed outputs at step 1 of 4" in ended.err
    assert "resumed step 1: exact" in ended.err
    assert work.status()["state"] == "finished"
    assert_same(work)


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_and_ends_the_same(work, changes):
    undisturbed(work, **changes)
    killed = work.train(before=stop_at(3, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    assert work.status()["state"] == "running"
    assert len(work.metrics()) == 3
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "resumed outputs at step 2 of 4" in ended.err
    assert_same(work)
    ended = work.train("--resume", "--num-episodes", "8")
    assert ended.code == 2
    assert "config error in --num-episodes: training.num_episodes is 8, but the run in outputs has held 16" in ended.err
    assert work.status()["state"] == "finished"
    ended = work.train("--resume")
    assert "resumed outputs at step 4 of 4: nothing is left to train" in ended.err


def test_a_run_may_be_stopped_again_and_again(work):
    undisturbed(work, training__save_every=4)
    for step, number in ((1, signal.SIGINT), (2, signal.SIGTERM), (3, signal.SIGKILL)):
        more = ["--resume"] if step > 1 else []
        assert work.train(*more, before=stop_at(step, number)).code in (75, -signal.SIGKILL)
    assert work.train("--resume").code == 0
    assert_same(work)


def test_a_run_killed_before_its_first_checkpoint_begins_again_and_says_so(work):
    undisturbed(work)
    assert work.train(before=stop_at(1, signal.SIGKILL)).code == -signal.SIGKILL
    ended = work.train("--resume")
    assert ended.code == 0
    assert "resumed outputs at step 0: it had no checkpoint yet, so it begins again" in ended.err
    assert_same(work)


def test_resuming_a_finished_run_changes_nothing_and_prints_its_report_again(work):
    undisturbed(work)
    before = work.snapshot("whole")
    ended = work.train("--output-dir", "whole", "--resume")
    assert ended.code == 0
    assert ended.out == (work.path / "whole" / "report.txt").read_text()
    after = work.snapshot("whole")
    for name in ("status.json", "final_model/manifest.json"):  # they hold the time
        assert before.pop(name)
        assert after.pop(name)
    assert before == after


def test_a_damaged_checkpoint_is_passed_over_and_moved_out_of_the_way(work):
    undisturbed(work)
    assert work.train(before=stop_at(4, signal.SIGKILL)).code == -signal.SIGKILL
    checkpoints = work.path / "outputs" / "checkpoints"
    assert not (checkpoints / "step-4").exists()
    shutil.copytree(checkpoints / "step-2", checkpoints / "step-3")  # a later one, and then damaged
    with (checkpoints / "step-3" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    ended = work.train("--resume")
    assert ended.code == 0
    assert "passed over" in ended.err
    assert "model.safetensors" in ended.err
    assert (checkpoints / "damaged-step-3").is_dir()
    assert_same(work)


def test_more_episodes_may_be_asked_for_on_resume(work):
    undisturbed(work)
    assert work.train("--num-episodes", "8").code == 0
    ended = work.train("--resume")
    assert ended.code == 0
    assert "as at its start: --num-episodes 8" in ended.err
    assert "resumed outputs at step 2 of 2: nothing is left to train" in ended.err
    ended = work.train("--resume", "--num-episodes", "16")
    assert ended.code == 0
    assert "num_episodes is 16 instead of 8" in ended.err
    assert "resumed outputs at step 2 of 4" in ended.err
    assert_same(work)
    ended = work.train("--resume", "--num-episodes", "8")
    assert ended.code == 2
    assert "config error in --num-episodes: training.num_episodes is 8, but the run in outputs has held 16" in ended.err
    assert work.status()["state"] == "finished"
    ended = work.train("--resume")
    assert "resumed outputs at step 4 of 4: nothing is left to train" in ended.err


def test_a_run_that_ran_out_of_memory_may_go_on_in_smaller_pieces_but_not_in_smaller_steps(work):
    undisturbed(work)
    assert work.train(before=stop_at(2, signal.SIGINT)).code == 75
    work.write(training__batch_size=1, training__gradient_accumulation_steps=2)
    ended = work.train("--resume")
    assert ended.code == 2
    assert "training.conversations_per_step is 2, but the run in outputs has 4." in ended.err
    work.write(training__batch_size=1, training__gradient_accumulation_steps=4, training__gradient_checkpointing=True)
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "resumed step 2: approximate: batch_size is 1 instead of 2: the same updates but for rounding;" in ended.err
    assert "gradient_checkpointing is True instead of False" in ended.err
    whole, resumed = work.metrics("whole")[2], work.metrics()[2]
    for name in ("loss", "grad_norm", "entropy", "reward_mean"):
        assert resumed[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_a_run_goes_on_in_the_precision_in_which_it_began(work):
    """The second part of the run finds another machine: one that would take float32."""
    work.write(training__mixed_precision=True)
    half = """
import torch
from stateset_agents.training import compute
seconds = {{torch.bfloat16: {half}, torch.float32: {full}}}
compute._fastest_products = lambda dtypes, device: [seconds[dtype] for dtype in dtypes]
"""
    fast = half.format(half=1, full=2)
    assert work.train("--output-dir", "whole", before=fast).code == 0
    assert work.train(before=fast + stop_at(2, signal.SIGINT)).code == 75
    ended = work.train("--resume", before=half.format(half=2, full=1))
    assert ended.code == 0, ended.err
    assert_same(work)


def test_changed_settings_are_refused_with_both_values_and_nothing_is_touched(work):
    assert work.train(before=stop_at(3, signal.SIGINT)).code == 75
    before = work.snapshot()
    work.write(agent__temperature=0.5, training__learning_rate=2e-3, rewards=[{"type": "safety", "weight": 1.0}])
    work.scenarios({"scenarios": [*SCENARIOS_WITHOUT_REFUND, {"id": "new", "user_responses": ["Hi"]}]})
    ended = work.train("--resume", "--seed", "7")
    assert ended.code == 2
    for expected in (
        "config error in run.json, line 5: agent.temperature is 0.5, but the run in outputs has 1.0.",
        "training.learning_rate is 0.002, but the run in outputs has 0.001.",
        "config error in --seed: training.seed is 7, but the run in outputs has 0.",
        'rewards[0].type is "safety", but the run in outputs has "custom".',
        'the scenarios are not those that the run trains on: 1 added (first: "new"), 1 missing (first: "refund").',
        "--resume-from outputs and another --output-dir",
    ):
        assert expected in ended.err
    assert "Traceback" not in ended.err
    assert work.snapshot() == before


HELD_OUT = [
    {"id": "held", "user_responses": ["Do you ship abroad?"]},
    {"id": "late", "user_responses": ["It is late."]},
]
ANSWERS = {"price": "$49", "order": "on its way", "refund": ["30 days", "a month"]}
FILES = {
    "training__eval_every": 8,
    "training__eval_samples": 1,
    "training__eval_scenarios_file": "held.json",
    "rewards": [
        {"type": "custom", "module": "my_rewards.vowels"},
        {"type": "correctness", "ground_truth_file": "truth.json", "weight": 0.1},
    ],
}


def write_files(folder: Path, held: object = HELD_OUT, answers: object = ANSWERS) -> None:
    (folder / "held.json").write_text(json.dumps(held))
    (folder / "truth.json").write_text(json.dumps({"ground_truth": answers}))


def test_a_project_that_moved_goes_on_and_ends_the_same(work):
    """Mutation: either file is compared by its path."""
    write_files(work.path)
    undisturbed(work, **FILES)
    assert work.train(before=stop_at(3, signal.SIGINT)).code == 75
    moved = work.path / "moved"
    moved.mkdir()
    for name in ("run.json", "scenarios.json", "my_rewards.py", "held.json", "truth.json"):
        (work.path / name).rename(moved / name)
    ended = work.train("--resume", config="moved/run.json")
    assert ended.code == 0, ended.err
    assert_same(work)


@pytest.mark.parametrize(
    ("held", "answers", "key", "words"),
    [
        ([HELD_OUT[0]], ANSWERS, "evaluations would", 'those of the run play: 1 missing (first: "late").'),
        (HELD_OUT[::-1], ANSWERS, "evaluations would", "those of the run play: the order has changed."),
        (
            HELD_OUT,
            {**ANSWERS, "price": "$59", "new": "yes"},
            "rewards[1].ground_truth_file",
            'the answers that the run learns from: 1 added (first: "new"), 1 changed (first: "price").',
        ),
    ],
)
def test_changed_content_of_a_file_is_refused_by_its_key(work, held, answers, key, words):
    write_files(work.path)
    work.write(**FILES)
    assert work.train(before=stop_at(2, signal.SIGINT)).code == 75
    before = work.snapshot()
    write_files(work.path, held, answers)
    ended = work.train("--resume")
    assert ended.code == 2, ended.err
    assert re.search(rf"config error in run.json, line \d+: {re.escape(key)}.*{re.escape(words)}", ended.err), ended.err
    assert ended.err.count("config error") == 1
    assert work.snapshot() == before


def test_evaluations_on_scenarios_of_their_own_are_not_begun_in_the_middle(work):
    write_files(work.path)
    work.write(training__eval_every=8, training__eval_samples=1)
    assert work.train(before=stop_at(2, signal.SIGINT)).code == 75
    work.write(training__eval_every=8, training__eval_samples=1, training__eval_scenarios_file="held.json")
    ended = work.train("--resume")
    assert ended.code == 2
    assert "the run play those that it trains on, and this one's would play scenarios of their own" in ended.err


FAILS_WHILE_LOADING = """
from stateset_agents.training import trainer
async def broken(self, *_, **__):
    raise MemoryError("no memory left")
trainer.Trainer.prepare = broken
"""

FAILS_IN_THE_FIRST_STEP = """
from stateset_agents.training import learner
def broken(self, *_, **__):
    raise MemoryError("no memory left")
learner.Learner.step = broken
"""


@pytest.mark.parametrize("arguments", [[], ["--resume"]], ids=["the same command", "resume"])
@pytest.mark.parametrize("before", [FAILS_WHILE_LOADING, FAILS_IN_THE_FIRST_STEP])
def test_a_run_that_failed_before_its_first_step_begins_again(work, before, arguments):
    work.write(logging={"log_file": "run.log"})
    assert work.train(before=before).code != 0
    assert work.status()["state"] == "failed"
    again = work.train(*arguments)
    assert again.code == 0, again.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3, 4]
    played = (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in played] == [step for step in (1, 2, 3, 4) for _ in range(4)]


def test_a_run_whose_status_was_lost_goes_on(work):
    assert work.train("--output-dir", "whole", "--num-episodes", "24").code == 0
    assert work.train().code == 0
    (work.path / "outputs" / "status.json").unlink()
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 0, ended.err
    assert work.metrics() == work.metrics("whole")
    assert work.status()["state"] == "finished"


def test_an_empty_place_to_start_from_is_no_place(work):
    """A variable that is not set: the current folder is not meant."""
    ended = work.train("--resume-from", "")
    assert ended.code == 2
    assert "--resume-from is empty" in ended.err
    assert not (work.path / "outputs").exists()


def test_a_folder_without_a_run_cannot_be_resumed(work):
    (work.path / "empty").mkdir()
    for folder, words in (("nowhere", "nowhere does not exist"), ("empty", "empty holds no run")):
        ended = work.train("--resume", "--output-dir", folder)
        assert ended.code == 3
        assert words in ended.err
    assert not (work.path / "nowhere").exists()
    assert not list((work.path / "empty").iterdir())


KILLED_BEFORE_ITS_CONFIG = """
import os, signal
from stateset_agents.tracking import run_folder
replace = run_folder.replace_text
def killed(path, *more, **rest):
    if path.name == "config.yaml":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(path, *more, **rest)
run_folder.replace_text = killed
"""


def test_a_run_that_was_killed_before_its_config_was_written_begins_with_resume_as_well(work):
    """Mutation: `RunFolder.open` asks for `config.yaml` whatever the status says."""
    assert work.train("--output-dir", "whole").code == 0
    assert work.train(before=KILLED_BEFORE_ITS_CONFIG).code == -signal.SIGKILL
    assert sorted(work.snapshot()) == ["status.json"]
    told = work.start("--resume", "--output-dir", "outputs").wait()
    assert told.code == 3
    assert "outputs was stopped while it began" in told.err
    assert "give the config file as well" in told.err
    assert sorted(work.snapshot()) == ["status.json"]
    dry = work.train("--resume", "--dry-run")
    assert "resumes: outputs from its beginning" in dry.out
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert work.result() == work.result("whole")


def test_a_second_run_in_the_same_folder_is_refused_and_nothing_is_overwritten(work):
    assert work.train().code == 0
    before = work.snapshot()
    ended = work.train("--seed", "5")
    assert ended.code == 3
    assert "run folder error: outputs already holds a run, and a run is never overwritten" in ended.err
    assert "--resume" in ended.err
    assert work.snapshot() == before


def test_two_processes_cannot_write_one_run(work):
    first = work.start("run.json", before=WAIT_IN_STEP_2)
    work.until(lambda: (work.path / "in-step-2").exists())
    written = f"is being written by process {first.pid}"
    for arguments, words in (
        ([], "already holds a run"),
        (["--resume"], written),
        (["--resume", "--dry-run"], written),
    ):
        ended = work.train(*arguments)
        assert ended.code == 3
        assert words in ended.err
    (work.path / "go").touch()
    assert first.wait().code == 0
    assert len(work.metrics()) == 4


def test_a_new_run_starts_from_the_weights_and_optimizer_of_another(work):
    from safetensors.torch import load_file

    undisturbed(work)
    work.write(training__num_episodes=8, training__learning_rate=1e-9)
    ended = work.train("--resume-from", "whole", "--output-dir", "next")
    assert ended.code == 0, ended.err
    assert "started from whole/checkpoints/step-4: its weights and optimizer state, at step 0" in ended.err
    assert [row["step"] for row in work.metrics("next")] == [1, 2]
    assert [row["episodes"] for row in work.metrics("next")] == [4, 8]
    first, start = (
        load_file(work.path / run / "checkpoints" / step / "optimizer.safetensors")
        for run, step in (("next", "step-0"), ("whole", "step-4"))
    )
    assert all(first[name].equal(start[name]) for name in start)
    last = load_file(work.path / "next" / "checkpoints" / "step-2" / "optimizer.safetensors")
    assert {int(last[name]) for name in last if name.endswith("|step")} == {
        int(start[name]) + 2 for name in start if name.endswith("|step")
    }
    weights = [load_file(work.path / run / "final_model" / "model.safetensors") for run in ("next", "whole")]
    assert all(weights[0][name].allclose(weights[1][name], atol=1e-6) for name in weights[1])


def test_a_new_run_says_which_damaged_checkpoint_it_did_not_start_from(work):
    undisturbed(work)
    with (work.path / "whole/checkpoints/step-4/model.safetensors").open("ab") as file:
        file.write(b"more")
    ended = work.train("--resume-from", "whole", "--output-dir", "next", "--num-episodes", "4")
    assert ended.code == 0, ended.err
    assert "passed over: whole/checkpoints/step-4 is damaged: model.safetensors" in ended.err
    assert "started from whole/checkpoints/step-2" in ended.err


def test_a_final_model_gives_a_new_run_its_weights_alone(work):
    undisturbed(work)
    work.write(training__num_episodes=4)
    ended = work.train("--resume-from", "whole/final_model", "--output-dir", "next")
    assert ended.code == 0, ended.err
    assert "whole/final_model: its weights, with a fresh optimizer, at step 0" in ended.err
    start = work.path / "next" / "checkpoints" / "step-0"
    assert (start / "model.safetensors").read_bytes() == (
        work.path / "whole" / "final_model" / "model.safetensors"
    ).read_bytes()


TYPED = ("--num-episodes", "12", "--seed", "7", "--profile", "conservative", "--save-every", "4")


@pytest.mark.parametrize("config", [(), ("run.json",)], ids=["without", "with"])
def test_a_run_goes_on_as_it_was_told_and_nothing_is_typed_again(work, config):
    work.write(training__num_episodes=16, training__save_every=None)
    ended = work.train(*TYPED, "--output-dir", "whole")
    assert ended.code == 0, ended.err
    for step in (2, 3):  # and once more, after a resumed run was stopped
        typed = ("run.json", *TYPED) if step == 2 else (*config, "--resume")
        killed = work.start(*typed, "--output-dir", "other", before=stop_at(step, signal.SIGKILL)).wait()
        assert killed.code == -signal.SIGKILL, killed.err
    ended = work.start(*config, "--resume", "--output-dir", "other").wait()
    assert ended.code == 0, ended.err
    assert "resumed other at step 2 of 3" in ended.err
    assert "has no effect" not in ended.err
    assert work.result("other") == work.result("whole")
    told = [(work.path / run / "config.yaml").read_text() for run in ("other", "whole")]
    assert told[0] == told[1]
    origins = [json.loads((work.path / run / "config_origins.json").read_text()) for run in ("other", "whole")]
    assert origins[0] == origins[1]
    assert "environment.persona" not in origins[0]  # what nobody said is left to an environment's own class
    before = work.snapshot("other")
    ended = work.start(*config, "--resume", "--output-dir", "other", "--seed", "8").wait()
    assert ended.code == 2
    assert "config error in --seed: training.seed is 8, but the run in other has 7." in ended.err
    assert work.snapshot("other") == before


def test_a_run_that_is_not_there_or_has_no_config_is_not_gone_on_with(work):
    ended = work.start("--resume", "--output-dir", "nowhere").wait()
    assert (ended.code, ended.err) == (
        3,
        "run folder error: nowhere does not exist, so there is no run to read or resume there\n",
    )
    ended = work.start("--output-dir", "nowhere").wait()
    assert ended.code == 2
    assert "Missing argument 'CONFIG_FILE'." in ended.err


def test_a_run_whose_own_config_is_damaged_says_so_and_goes_on_with_the_one_that_it_began_with(work):
    work.write()
    typed = ["--seed", "7"]
    assert work.train(*typed, before=stop_at(2, signal.SIGTERM)).code == 75
    (work.path / "outputs/config.yaml").write_text("agent: [")
    refused = work.start("--resume").wait()
    assert refused.code == 2
    assert "config error in config.yaml, line 1: not valid YAML" in refused.err
    assert f"that is {Path('outputs/config.yaml')}, which the run wrote: give the config file as well" in refused.err
    refused = work.train("--resume")
    assert "training.seed is 0, but the run in outputs has 7." in refused.err
    ended = work.train(*typed, "--resume")
    assert ended.code == 0, ended.err
    assert "seed: 7" in (work.path / "outputs/config.yaml").read_text()


def test_the_command_says_that_a_run_of_a_program_goes_on_in_python(work):
    work.write()
    assert work.train().code == 0
    file = work.path / "outputs/config.yaml"
    file.write_text(re.sub(r"rewards:\n(- .*\n(  .*\n)*)+", "rewards: {type: helpfulness}\n", file.read_text()))
    refused = work.start("--resume").wait()
    assert refused.code == 2
    assert "a run that was started in Python goes on there: train(..., resume=True)" in refused.err


def test_a_secret_that_the_runs_own_config_lacks_is_asked_for(work):
    work.write(environment_variables__JUDGE_API_KEY="hunter2hunter2")
    assert work.train(before=stop_at(2, signal.SIGKILL)).code == -signal.SIGKILL
    ended = work.start("--resume").wait()
    assert ended.code == 0, ended.err
    assert "JUDGE_API_KEY: secret, and so not in it. Set it in the shell, or give the config file as well" in ended.err


def test_a_run_that_started_from_another_one_is_resumed_without_it(work):
    undisturbed(work)
    more = ["--resume-from", "whole", "--output-dir", "next"]
    assert work.train(*more).code == 0
    (work.path / "next").rename(work.path / "expected")
    assert work.train(*more, before=stop_at(1, signal.SIGKILL)).code == -signal.SIGKILL
    (work.path / "whole").rename(work.path / "gone")
    ended = work.train("--output-dir", "next", "--resume")
    assert ended.code == 0, ended.err
    assert "resumed next at step 0 of 4" in ended.err
    (work.path / "expected").rename(work.path / "whole")
    assert_same(work, "next")


@pytest.mark.parametrize("killed", [KILLED_AT_ITS_FIRST_WORD, KILLED_WHILE_LOADING], ids=["first word", "loading"])
def test_a_run_killed_before_it_took_its_start_takes_it_on_resume(work, killed):
    """Mutation: the start is written after `config.yaml`; a run killed in between began with the model, in silence."""
    undisturbed(work)
    more = ["--resume-from", "whole", "--output-dir", "next"]
    assert work.train(*more).code == 0
    (work.path / "next").rename(work.path / "expected")
    assert work.train(*more, before=killed).code == -signal.SIGKILL
    assert not list((work.path / "next" / "checkpoints").iterdir())
    ended = work.train("--output-dir", "next", "--resume")
    assert ended.code == 0, ended.err
    assert "started from" in ended.err
    assert work.metrics("next") == work.metrics("expected")


def test_what_a_new_run_cannot_start_from_is_refused_before_its_folder_is_made(work):
    (work.path / "half").mkdir()
    for path, words in (("nowhere", "there is no checkpoint nowhere"), ("half", "half is no run and no checkpoint")):
        ended = work.train("--resume-from", path, "--output-dir", "next")
        assert ended.code == 3
        assert words in ended.err
        assert not (work.path / "next").exists()
    ended = work.train("--resume-from", "whole", "--resume", "--output-dir", "next")
    assert ended.code == 2
    assert "give one of them" in ended.err


def test_adapters_cannot_be_trained_on_top_of_a_checkpoint_without_them(work):
    undisturbed(work)
    work.write(**LORA)
    ended = work.train("--resume-from", "whole", "--output-dir", "next")
    assert ended.code == 2
    assert (
        "holds merged weights; to train new adapters on top of them, give the folder as the model's name" in ended.err
    )
    ended = work.train("--model-name", "whole/final_model", "--output-dir", "other")
    assert ended.code == 0, ended.err


def test_the_script_itself_stops_at_ctrl_c_and_prints_the_command_that_resumes(work):
    """No launcher: the installed script, in a process group of its own as a terminal makes one."""
    undisturbed(work)
    rewards = work.path / "my_rewards.py"
    rewards.write_text(
        "import asyncio\n" + rewards.read_text().replace("text =", "await asyncio.sleep(0.1)\n    text =")
    )
    arguments = [str(Path(sys.executable).parent / "grpo-train"), "run.json", "--output-dir", "my runs/first"]
    process = subprocess.Popen(
        arguments, cwd=work.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    work.until(lambda: (work.path / "my runs/first/metrics.jsonl").exists() and work.metrics("my runs/first"))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert out == ""
    assert "Traceback" not in err
    (command,) = re.findall(r"To continue:\n  (grpo-train .*)$", err, flags=re.MULTILINE)
    assert command == "grpo-train run.json --output-dir 'my runs/first' --resume"
    assert command in work.status("my runs/first")["message"]
    ended = work.start(*shlex.split(command)[1:]).wait()
    assert ended.code == 0, ended.err
    assert_same(work, "my runs/first")


@pytest.mark.parametrize("lost", ["last", "middle", "all", "its number", "its end"])
def test_a_run_whose_metrics_were_lost_is_refused_before_anything_is_touched(work, lost):
    work.write()
    assert work.train(before=stop_at(3, signal.SIGTERM)).code == 75
    log = work.path / "outputs" / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    renamed = lines[1].replace(b'"step": 2', b'"step": "2"')
    kept = {
        "last": lines[:-1],
        "middle": lines[:1] + lines[2:],
        "all": [],
        "its number": [lines[0], renamed, lines[2]],
        "its end": lines * 2,
    }
    log.write_bytes(b"".join(kept[lost]))
    before = {
        file: file.read_bytes() for file in (work.path / "outputs").rglob("*.json*") if file.name != "status.json"
    }
    refused = work.train("--resume")
    assert refused.code == 3
    step = {"last": len(lines), "all": 1}.get(lost, 2)
    what = "holds more than its steps" if lost == "its end" else f"does not hold step {step}"
    assert f"metrics.jsonl {what}" in refused.err
    assert refused.err.count("--resume-from outputs") == 1
    assert before == {file: file.read_bytes() for file in before}


def test_a_run_whose_checkpoints_are_gone_is_not_begun_again_over_its_logs(work):
    work.write()
    assert work.train(before=stop_at(3, signal.SIGKILL)).code == -signal.SIGKILL
    checkpoints, elsewhere = work.path / "outputs" / "checkpoints", work.path / "elsewhere"
    checkpoints.rename(elsewhere)
    refused = work.train("--resume")
    assert refused.code == 3
    assert "outputs/checkpoints holds none: they were moved or deleted" in refused.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3]
    elsewhere.rename(checkpoints)
    assert work.train("--resume").code == 0


def test_the_folder_says_what_the_run_goes_on_with(work):
    """Mutation: `config.yaml` stays that of the beginning."""
    work.write()
    assert work.train().code == 0
    ended = work.train("--resume", "--num-episodes", "24")
    assert ended.code == 0, ended.err
    assert "num_episodes: 24" in (work.path / "outputs" / "config.yaml").read_text()
