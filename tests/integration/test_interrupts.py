"""Ctrl-C, whatever the run is doing: answered at once, nothing lost, and the resumed run ends as an undisturbed one."""

import signal
import time

import pytest

BLOCK = """
import asyncio, os, time
def wait():
    os.mkdir("under-way")
    end = time.monotonic() + 20
    while not os.path.exists("go") and time.monotonic() < end:
        time.sleep(0.01)
async def wait_without_blocking():
    os.mkdir("under-way")
    await asyncio.sleep(20)
"""
"""Lets a command stop and say so in the middle of a phase; `wait` blocks the event loop, as computing does."""

IN_ROLLOUT = """
from stateset_agents.rollouts import episode
play = episode.play_unjudged
from stateset_agents.rollouts import groups
async def waiting(*arguments, key, **more):
    if key.startswith("0/1/") and not os.path.exists("under-way"):
        await wait_without_blocking()
    return await play(*arguments, key=key, **more)
groups.play_unjudged = waiting
"""
IN_EVALUATION = IN_ROLLOUT.replace('"0/1/"', '"evaluation/"')
IN_LEARNING = """
from stateset_agents.training import learner
step = learner.Learner.step
def waiting(self, *arguments, **more):
    metrics = step(self, *arguments, **more)
    if self.steps == 2:
        wait()
    return metrics
learner.Learner.step = waiting
"""
IN_SAVING = """
from stateset_agents.training import saving
save = saving.save_run_state
def waiting(folder, *arguments, **more):
    if folder.name == "step-2":
        wait()
    return save(folder, *arguments, **more)
saving.save_run_state = waiting
"""
WHILE_LOADING = """
from stateset_agents.training import trainer
prepare = trainer.Trainer.prepare
async def waiting(self, *arguments, **more):
    wait()
    await prepare(self, *arguments, **more)
trainer.Trainer.prepare = waiting
"""
PHASES = {
    "rollout": (IN_ROLLOUT, 1),
    "learning": (IN_LEARNING, 2),
    "evaluation": (IN_EVALUATION, 2),
    "saving": (IN_SAVING, 2),
}
"""What blocks, and the step whose state is saved."""


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_in_any_phase_saves_and_resumes_to_the_same_bytes(work, phase):
    block, saved = PHASES[phase]
    changes = {"training__eval_every": 8, "training__eval_samples": 1} if phase == "evaluation" else {}
    work.write(**changes)
    assert work.train("--output-dir", "whole").code == 0
    run = work.start("run.json", before=BLOCK + block)
    work.until((work.path / "under-way").exists)
    begin = time.monotonic()
    run.send(signal.SIGINT)
    if phase in ("learning", "saving"):  # what cannot be given up is finished
        work.until(lambda: "stopping" in run.err.read_text())
        (work.path / "go").touch()
    ended = run.wait()
    assert time.monotonic() - begin < 10
    assert ended.code == 75, ended.err
    assert "Traceback" not in ended.err
    assert f"stopped and saved at step {saved} in outputs" in ended.err
    assert (work.path / "outputs" / "checkpoints" / f"step-{saved}").is_dir()
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert f"resumed outputs at step {saved} of 4" in ended.err
    assert work.metrics() == work.metrics("whole")
    for part in ("final_model/model.safetensors", "checkpoints/step-4/optimizer.safetensors"):
        assert (work.path / "outputs" / part).read_bytes() == (work.path / "whole" / part).read_bytes()


def test_a_checkpoint_that_waited_for_an_evaluation_is_the_undisturbed_one_once_that_is_made(work):
    """Mutation: a checkpoint that is there is never written again, and each resumption evaluates again."""
    work.write(training__eval_every=16, training__eval_samples=1)  # after the last step
    assert work.train("--output-dir", "whole").code == 0
    run = work.start("run.json", before=BLOCK + IN_EVALUATION)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGINT)
    ended = run.wait()
    assert "stopped and saved at step 4 in outputs" in ended.err
    assert work.train("--resume").code == 0
    assert work.result() == work.result("whole")


def test_ctrl_c_while_the_model_is_loaded_loses_nothing_and_says_how_to_begin_again(work):
    assert work.train("--output-dir", "whole").code == 0
    run = work.start("run.json", before=BLOCK + WHILE_LOADING)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGTERM)
    (work.path / "go").touch()
    ended = run.wait()
    assert ended.code == 75, ended.err
    assert "stopped before the first step was done; nothing was lost" in ended.err
    assert "\n  grpo-train run.json --resume\n" in ended.err
    assert work.status()["state"] == "interrupted"
    assert work.train("--resume").code == 0
    assert work.metrics() == work.metrics("whole")


def test_the_command_that_resumes_leaves_out_where_the_run_once_started_from(work):
    assert work.train("--output-dir", "whole").code == 0
    for folder, flag in (("one", ["--resume-from", "whole"]), ("two", ["--resume-from=whole"])):
        run = work.start("run.json", *flag, "--output-dir", folder, before=BLOCK + WHILE_LOADING)
        work.until((work.path / "under-way").exists)
        run.send(signal.SIGINT)
        (work.path / "go").touch()
        assert f"\n  grpo-train run.json --output-dir {folder} --resume\n" in run.wait().err
        (work.path / "go").unlink()
        (work.path / "under-way").rmdir()


@pytest.mark.parametrize("block", [WHILE_LOADING, IN_SAVING], ids=["loading", "saving"])
def test_a_signal_that_is_delivered_twice_is_one(work, block):
    """`timeout` signals the process and then its group."""
    run = work.start("run.json", before=BLOCK + block)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGTERM)
    time.sleep(0.02)
    run.send(signal.SIGTERM)
    work.until(lambda: "Once more leaves at once" in run.err.read_text())
    (work.path / "go").touch()
    assert run.wait().code == 75


def test_a_terminal_that_is_closed_stops_a_run_in_order_however_often_it_says_so(work):
    run = work.start("run.json", before=BLOCK + IN_SAVING)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGHUP)
    work.until(lambda: "Once more leaves at once" in run.err.read_text())
    time.sleep(0.2)  # longer than what is taken for the same signal
    run.send(signal.SIGHUP)
    (work.path / "go").touch()
    assert run.wait().code == 75
    assert work.status()["state"] == "interrupted"


def test_a_run_under_nohup_is_not_stopped_by_a_terminal_that_is_closed(work):
    run = work.start(
        "run.json", before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + BLOCK + IN_SAVING
    )
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGHUP)
    (work.path / "go").touch()
    assert run.wait().code == 0


def test_the_second_ctrl_c_leaves_at_once_and_the_run_can_still_be_resumed(work):
    assert work.train("--output-dir", "whole").code == 0
    run = work.start("run.json", before=BLOCK + IN_SAVING)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGINT)
    work.until(lambda: "Once more leaves at once" in run.err.read_text())
    begin = time.monotonic()
    run.send(signal.SIGINT)
    ended = run.wait()
    assert time.monotonic() - begin < 1
    assert ended.code == -signal.SIGINT
    assert not list((work.path / "outputs" / "checkpoints").glob("step-*"))
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert work.metrics() == work.metrics("whole")
    assert not list((work.path / "outputs" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_a_signal_before_there_is_a_run_the_same_command_begins_it(work, number):
    block = """
from stateset_agents.training import beforehand
def waiting(*arguments, **more):
    wait()
beforehand.preflight = waiting
"""
    run = work.start("run.json", before=BLOCK + block)
    work.until((work.path / "under-way").exists)
    run.send(number)
    if number == signal.SIGTERM:
        time.sleep(0.02)
        run.send(number)
    (work.path / "go").touch()
    ended = run.wait()
    assert ended.code == 75
    assert "Traceback" not in ended.err
    assert work.train().code == 0


def test_a_run_of_a_stub_that_was_stopped_says_that_it_begins_again(work):
    block = IN_ROLLOUT
    work.write(agent__model_name="stub://Yes.|No.")
    run = work.start("run.json", before=BLOCK + block)
    work.until((work.path / "under-way").exists)
    run.send(signal.SIGINT)
    ended = run.wait()
    assert ended.code == 75
    assert "stopped after step 1. A model without weights saves nothing; to begin again" in ended.err
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "a model without weights has no checkpoints, so it begins again" in ended.err
    assert [row["step"] for row in work.metrics()] == [1, 2, 3, 4]
