"""The examples as a user runs them, with a random model in the real one's place: that they run, and what they say."""

import importlib
import re
import subprocess
import sys

import pytest

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
    assert "already holds a run" in capsys.readouterr().err


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
