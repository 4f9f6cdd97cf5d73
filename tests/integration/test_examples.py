"""The examples as a user runs them, with a random model in the real one's place: that they run, and what they say."""

import importlib
import itertools
import json
import re
import subprocess
import sys

import pytest

from endpoint_server import BROKEN, BUSY, MALFORMED, tiny_model
from stateset_agents.examples import llm_judge

NAMES = [
    "quick_start",
    "customer_service_agent",
    "tutoring_agent",
    "tool_agent",
    "custom_environment",
    "custom_reward",
    "task_agent",
    "llm_user",
    "llm_judge",
]
THAT_TRAIN = [name for name in NAMES if name not in ("customer_service_agent", "llm_user")]
SMALL = ["--model", "tiny", "--episodes", "16", "--samples", "1"]
MEAN = r"(-?\d+\.\d{3}) \(95 % interval"


def main(name, arguments):
    return importlib.import_module(f"stateset_agents.examples.{name}").main(arguments)


@pytest.mark.parametrize("name", THAT_TRAIN)
def test_an_example_trains_and_compares_what_it_measured_before_with_what_it_measured_after(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(name, SMALL + (["--epochs", "1"] if name == "tool_agent" else [])) == 0
    out = capsys.readouterr().out
    stages = ["\n1. tiny, ", "\n2. It trains", "step 1/1: reward", "\n3. The trained one", "before and after"]
    assert [out.index(stage) for stage in stages] == sorted(out.index(stage) for stage in stages)
    measured = [re.search(rf"^reward   {MEAN}", part, re.MULTILINE)[1] for part in out.split("\n1. ")[1].split("\n3. ")]
    compared = re.search(
        rf"^reward   before  {MEAN}.*\nreward   after   {MEAN}.*\nreward   change  ", out, re.MULTILINE
    )
    assert list(compared.groups()) == measured
    assert re.search(r"\n\d+ seconds\n$", out)
    assert list(tmp_path.iterdir()) == []


def test_a_small_customer_service_show_tells_every_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "tiny", "--epochs", "1", "--episodes", "8"]
    assert main("customer_service_agent", arguments) == 0
    out = capsys.readouterr().out
    for stage in ("untrained", "imitation", "reinforcement"):
        assert re.search(rf"^{stage} +reward +{MEAN}", out, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_the_same_conversations_with_three_kinds_of_users(capsys):
    assert main("llm_user", ["--model", "tiny"]) == 0
    out = capsys.readouterr().out
    scripted, played, mixed = out.split("\nUser: ")[1:]
    assert "user: 'Can you tell me more?'" in scripted
    assert played.startswith("model. The user is played: tiny at temperature 0.7, seed 0.")
    assert "user: 'My parcel is late. When will it come?'" in played
    assert "Can you tell me more?" not in played
    assert "50% scripted and 50% tiny" in mixed
    for part in (scripted, played, mixed):
        assert re.search(r"^\d conversations scored, (none failed|\d failed by user)$", part, re.MULTILINE)


def test_the_judge_example_says_that_nobody_judges_and_how_somebody_would(capsys):
    assert main("llm_judge", ["--model", "tiny", "--episodes", "0", "--samples", "1", "--stub-judge"]) == 0
    out = capsys.readouterr().out
    assert "No server judges: a stand-in counts words, and its grades mean nothing." in out
    assert "--base-url http://127.0.0.1:8000/v1 --judge-model NAME" in out
    assert re.search(rf"^reward   {MEAN}.* of 1$", out, re.MULTILINE)
    assert "2. It trains" not in out


def test_a_judge_that_cannot_be_reached_stops_the_program_with_its_reason(capsys):
    server = ["--base-url", "http://127.0.0.1:1/v1", "--judge-model", "m"]
    assert main("llm_judge", ["--model", "tiny", "--samples", "1", *server]) == 4
    err = capsys.readouterr().err
    assert "not one conversation could be scored" in err
    assert "6 of 6 episodes are in no mean" in err
    assert "Traceback" not in err


def graded(body):
    return json.dumps({"score": len(body["messages"][1]["content"]) % 11})


def test_a_server_judges_and_what_it_fails_to_answer_at_first_is_asked_again(endpoint_server, monkeypatch, capsys):
    """Mutation: the key, the name of the model or the rubric does not reach the server."""
    faults = itertools.cycle([BROKEN, BUSY, MALFORMED])
    server = endpoint_server(lambda number, body: next(faults) if number % 5 == 4 else graded(body))
    monkeypatch.setenv("KEY_OF_THE_JUDGE", "sk-canary-1")
    arguments = ["--base-url", server.base_url, "--judge-model", "a-judge", "--api-key-env", "KEY_OF_THE_JUDGE"]
    assert main("llm_judge", [*SMALL, *arguments]) == 0
    out = capsys.readouterr().out
    assert "stand-in" not in out
    assert "step 1/1: reward" in out
    assert out.count("6 scenarios x 1 sample,") == 2
    assert "are in no mean" not in out
    # 6 + 16 + 6 conversations are judged once each; of 34 requests, numbers 4, 9, ... 29 fail and are made again.
    assert server.count == 34
    assert {body["model"] for body in server.bodies} == {"a-judge"}
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-canary-1"}
    assert llm_judge.RUBRIC[1] in server.bodies[0]["messages"][0]["content"]
    assert "sk-canary-1" not in out


def test_a_judge_that_answers_every_second_question_costs_samples_and_not_the_run(endpoint_server, capsys):
    seen = {}

    def behaviour(number, body):
        place = seen.setdefault(body["messages"][1]["content"], len(seen))
        return graded(body) if place % 2 else "I would rather not say."

    server = endpoint_server(behaviour)
    assert main("llm_judge", [*SMALL, "--base-url", server.base_url, "--judge-model", "m"]) == 0
    out = capsys.readouterr().out
    assert "3 of 6 episodes are in no mean: 3 reward" in out
    assert "step 1/1: reward" in out


@pytest.mark.parametrize("says", ["What does that mean?", None], ids=["a sentence", "a model"])
def test_a_server_plays_the_user_and_an_agent_trains_with_it(says, endpoint_server, capsys):
    """Mutation: the agent's own model plays although a server is named."""
    server = endpoint_server((lambda number, body: says) if says else tiny_model())
    arguments = ["--model", "tiny", "--episodes", "16", "--base-url", server.base_url, "--user-model", "customer"]
    assert main("llm_user", arguments) == 0
    scripted, played, mixed = capsys.readouterr().out.split("\nUser: ")[1:]
    assert "customer at temperature 0.7, seed 0" in played
    assert "step 1/1: reward" in played
    assert "50% scripted and 50% customer" in mixed
    if says:
        assert f"user: {says!r}" in played
        assert says not in scripted
    assert {body["model"] for body in server.bodies} == {"customer"}
    assert any("A customer of a web shop" in message["content"] for message in server.bodies[0]["messages"])


def test_a_user_that_cannot_be_reached_stops_the_program_with_its_reason(capsys):
    assert main("llm_user", ["--model", "tiny", "--base-url", "http://127.0.0.1:1/v1"]) == 4
    captured = capsys.readouterr()
    assert "4 of 4 episodes are in no mean: 4 user" in captured.err
    assert "Traceback" not in captured.err


def test_a_server_is_named_with_its_model_and_its_key_by_a_variable_that_is_there(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        main("llm_judge", ["--base-url", "http://127.0.0.1:1/v1"])
    assert "--judge-model has to name the model that judges there" in capsys.readouterr().err
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    server = ["--base-url", "http://127.0.0.1:1/v1", "--judge-model", "m", "--api-key-env", "NO_SUCH_KEY"]
    assert main("llm_judge", ["--model", "tiny", *server]) == 2
    assert "NO_SUCH_KEY" in capsys.readouterr().err


def test_an_output_folder_is_a_run_folder_and_a_second_run_there_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main("custom_reward", [*SMALL, "--output-dir", str(folder)]) == 0
    assert f"The trained agent is in {folder / 'final_model'}." in capsys.readouterr().out
    assert {"metrics.jsonl", "trajectories.jsonl", "final_model"} <= {path.name for path in folder.iterdir()}
    assert main("custom_reward", [*SMALL, "--output-dir", str(folder)]) == 3
    told = capsys.readouterr()
    assert "already holds a run" in told.err
    assert told.out == ""  # before anything is played


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_used_is_told_before_a_model_is_looked_for(name, tmp_path, capsys):
    """Mutation: it is told by the training, minutes later."""
    (tmp_path / "file").write_text("mine")
    for code, arguments, words in (
        (2, ["--resume"], "--resume continues the run in --output-dir: name it"),
        (
            2,
            ["--output-dir", str(tmp_path / "new"), "--episodes", "0"],
            "with --episodes 0 there is none: leave it out",
        ),
        (3, ["--resume", "--output-dir", str(tmp_path / "nowhere")], "does not exist, so there is no run to"),
        (3, ["--output-dir", str(tmp_path / "file")], "file"),
    ):
        assert main(name, ["--model", "./nowhere", "--episodes", "8", *arguments]) == code
        told = capsys.readouterr()
        assert words in told.err
        assert "there is no model folder" not in told.err
        assert told.out == ""


INTERRUPTED_AFTER_ITS_FIRST_STEP = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from stateset_agents.training import trainer
record = trainer.Trainer._record
def stopping(self, row):
    record(self, row)
    if row["step"] == 1 and self.parts.folder is not None and "--resume" not in sys.argv:
        os.kill(os.getpid(), signal.SIGINT)
trainer.Trainer._record = stopping
from stateset_agents.examples import NAME
sys.exit(NAME.main())
"""


@pytest.mark.parametrize("name", ["custom_environment", "customer_service_agent", "tool_agent"])
def test_an_example_that_ctrl_c_stopped_goes_on_with_resume_and_says_so(name, tmp_path):
    """Mutation: --resume is not handed to the training."""
    arguments = ["--model", "tiny", "--episodes", "32", "--samples", "1", "--output-dir", "run"]
    arguments += [] if name == "custom_environment" else ["--epochs", "1"]
    code = INTERRUPTED_AFTER_ITS_FIRST_STEP.replace("NAME", name)

    def ended(*more):
        command = [sys.executable, "-c", code, *arguments, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    first = ended()
    assert first.returncode == 75, first.stderr
    assert first.stderr.endswith("interrupted\nthe run in run can be continued: the same command with --resume\n")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert rows.count("\n") == 1
    second = ended("--resume")
    assert second.returncode == 0, second.stderr
    after = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert after.startswith(rows)
    assert after.count("\n") > 1
    assert (tmp_path / "run" / "final_model").is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_not_there_is_told_in_one_text_and_a_code(name, capsys):
    assert main(name, ["--model", "./nowhere"]) == 3
    err = capsys.readouterr().err
    assert "there is no model folder" in err
    assert "Traceback" not in err


def test_help_teaches_and_loads_no_model_library():
    code = f"""
import importlib, sys
for name in {NAMES}:
    try:
        importlib.import_module("stateset_agents.examples." + name).main(["--help"])
    except SystemExit as end:
        assert end.code == 0, name
print("loaded:", {{"torch", "transformers"}} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "loaded: set()"
    for name in NAMES:
        assert f"python -m stateset_agents.examples.{name}" in ended.stdout


def test_the_documented_module_runs_under_the_other_name_of_the_package():
    command = [sys.executable, "-W", "error", "-m", "grpo_agent_framework.examples.quick_start", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "usage: python -m stateset_agents.examples.quick_start" in ended.stdout


def test_the_documented_names_are_fetched_on_first_use():
    code = """
import sys
import stateset_agents.examples as examples
before = set(sys.modules)
from grpo_agent_framework.examples import CustomerServiceAgent, CustomerServiceEnvironment
from grpo_agent_framework.examples import create_customer_service_reward
from stateset_agents.examples import customer_service_agent as home
assert "stateset_agents.examples.customer_service_agent" not in before
assert CustomerServiceAgent is home.CustomerServiceAgent
assert CustomerServiceEnvironment is home.CustomerServiceEnvironment
assert create_customer_service_reward is home.create_customer_service_reward
assert not {"torch", "transformers"} & set(sys.modules)
try:
    examples.CustomerService
except AttributeError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "module 'stateset_agents.examples' has no attribute 'CustomerService'\n"
