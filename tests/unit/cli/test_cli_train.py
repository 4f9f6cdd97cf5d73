"""`grpo-train`: exit codes, messages and what it leaves unloaded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from stateset_agents.cli import train as command
from stateset_agents.config import RunConfig
from stateset_agents.core.errors import Interrupted, TrainingStopped
from stateset_agents.tracking.logging_setup import reset_logging

CONFIG = """\
agent: {model_name: "stub://echo", max_new_tokens: 16}
environment:
  scenarios_file: scenarios.json
  max_turns: 4
training: {num_episodes: 64}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with one config and its scenarios."""
    scenario = {"id": "refund", "user_responses": ["I want a refund.", "Order 7.", "Thanks."]}
    (tmp_path / "scenarios.json").write_text(json.dumps({"scenarios": [scenario]}))
    (tmp_path / "run.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    reset_logging()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command.app, list(arguments), prog_name="grpo-train")


def in_a_process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stateset_agents.cli.train", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_help_and_config_errors_load_neither_torch_nor_transformers(folder):
    for arguments in (["--help"], ["--version"], ["missing.yaml"]):
        loaded = loaded_by(f"from stateset_agents.cli.train import app; app({arguments!r})")
        assert "stateset_agents" in loaded
        assert loaded.isdisjoint({"torch", "transformers", "fastapi", "numpy"})


def test_help_teaches_every_documented_flag_units_and_exit_codes(folder):
    result = in_a_process("--help", folder=folder)
    assert result.returncode == 0
    assert "grpo-train [OPTIONS] CONFIG_FILE" in result.stdout
    flags = "model-name output-dir num-episodes profile auto-adjust early-stopping patience save-every eval-every"
    flags += " log-level wandb-project no-gpu help resume resume-from dry-run seed debug version"
    for flag in flags.split():
        assert f"--{flag}" in result.stdout
    words = " ".join(result.stdout.split())
    for expected in (
        "openai/gpt-oss-120b",
        "[default: 1000]",
        "[default: ./outputs]",
        "an episode is one conversation",
    ):
        assert expected in words
    assert "Exit codes: 0 done; 2 config" in words
    assert (
        "4 training stopped: a reward, environment or agent of yours fails, or there is nothing to learn; 70" in words
    )


def test_version_is_printed(folder):
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("grpo-train ")


def test_no_config_file_is_a_usage_error(folder):
    result = call()
    assert result.exit_code == 2
    assert "CONFIG_FILE" in result.stderr


def test_a_missing_config_is_named_in_full_with_the_configs_that_are_there(folder):
    result = in_a_process("nowhere.yaml", folder=folder)
    assert result.returncode == 2
    assert f"there is no file {folder / 'nowhere.yaml'}" in result.stderr
    assert "run.yaml" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", None, "empty"),
        (b"agent: {\n", 2, "not valid YAML"),
        (b"agent: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        (b"\x89PNG\x00", 1, "not a text file"),
        (b"- agent\n", 1, "a list at the top"),
        (b"agent: {}\nagent: {}\n", 2, "given twice"),
        (b"agent: {modle_name: x}\n", 1, 'did you mean "model_name"'),
        (b"training: {num_episodes: soon}\n", 1, "whole number"),
        (b"training: {learning_rate: -1}\n", 1, "greater than 0"),
        (b"training: {learning_rate: .nan}\n", 1, "finite"),
        (b"training: {num_generations: 1}\n", 1, "a group of one"),
        (b"environment: {max_turns: 0}\n", 1, "at least 1"),
    ],
)
def test_a_bad_config_ends_with_2_and_names_file_line_and_fix(folder, content, line, words):
    (folder / "bad.yaml").write_bytes(content)
    result = call("bad.yaml")
    assert result.exit_code == 2
    place = f"config error in bad.yaml, line {line}: " if line else "config error in bad.yaml: "
    assert result.stderr.startswith(place)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_missing_scenario_file_ends_with_3_and_names_the_places(folder):
    (folder / "bad.yaml").write_text("environment:\n  scenarios_file: none.json\n")
    result = call("bad.yaml")
    assert result.exit_code == 3
    assert 'data error in bad.yaml, line 2: environment.scenarios_file is "none.json"' in result.stderr
    assert str(folder / "none.json") in result.stderr


@pytest.mark.parametrize("content", ["", "not json", '{"scenarios": []}', '{"scenarios": [{"id": "a"}]}'])
def test_a_scenario_file_without_scenarios_ends_with_3(folder, content):
    (folder / "scenarios.json").write_text(content)
    result = call("run.yaml", "--dry-run")
    assert result.exit_code == 3
    assert "scenarios.json" in result.stderr
    assert "Traceback" not in result.stderr


def test_repeated_scenario_ids_end_with_3(folder):
    scenario = {"id": "refund", "user_responses": ["Hi"]}
    (folder / "scenarios.json").write_text(json.dumps({"scenarios": [scenario, scenario]}))
    result = call("run.yaml", "--dry-run")
    assert result.exit_code == 3
    assert "refund" in result.stderr


def test_wrong_flags_are_told_together_by_their_names(folder):
    result = call("run.yaml", "--num-episodes", "-3", "--profile", "fast", "--log-level", "loud")
    assert result.exit_code == 2
    assert "--num-episodes is -3; it must be at least 1" in result.stderr
    assert '--profile is "fast"' in result.stderr
    assert "--log-level is " in result.stderr
    assert "Traceback" not in result.stderr


def test_resume_and_resume_from_exclude_each_other(folder):
    result = call("run.yaml", "--resume", "--resume-from", "elsewhere")
    assert result.exit_code == 2
    assert "give one of them" in result.stderr


def test_debug_shows_the_traceback(folder):
    result = call("missing.yaml", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "there is no file" in result.stderr


def test_a_model_that_does_not_fit_ends_with_3_after_everything_else_was_printed(folder):
    result = call("run.yaml", "--dry-run", "--model-name", "openai/gpt-oss-120b", "--no-gpu")
    assert result.exit_code == 3
    assert "does not fit" in result.stderr
    assert "agent.model_name = openai/gpt-oss-120b  (--model-name)" in result.stdout


def test_a_model_folder_that_does_not_exist_ends_with_3(folder):
    result = call("run.yaml", "--dry-run", "--model-name", "./no-such-model")
    assert result.exit_code == 3
    assert "no-such-model" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_in_a_pipe_prints_one_line_per_value_with_its_origin(folder):
    result = call(
        "run.yaml",
        "--dry-run",
        "--seed",
        "7",
        "--no-gpu",
        "--output-dir",
        "runs/a",
        "--no-early-stopping",
        "--patience",
        "60",
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for expected in (
        "agent.model_name = stub://echo  (run.yaml:1)",
        "agent.device = cpu  (--no-gpu)",
        "agent.temperature = 0.7  (default)",
        "rewards = the default reward  (default)",
        "environment.max_turns = 4  (run.yaml:4)",
        "training.num_episodes = 64  (run.yaml:5)",
        "training.learning_rate = 1e-05  (profile balanced)",
        "training.early_stopping = false  (--no-early-stopping)",
        "training.seed = 7  (--seed)",
        "output_dir = runs/a  (--output-dir)",
        "steps: 4 of 16 episodes (2 scenarios x 8)",
        "scenarios: 1, each visited about 8.0 times",
        "sampled tokens per step: at most 768",
        "evaluation: every 4 steps: 1 training scenario x 2 conversations",
        "checkpoint: every 7 steps",
        "memory: none for a model without weights",
    ):
        assert expected in lines
    assert any(line.startswith("no effect: training.patience (") for line in lines)
    assert not (folder / "runs").exists()


def test_a_dry_run_on_a_terminal_prints_a_table(folder, monkeypatch):
    monkeypatch.setattr("stateset_agents.cli.dry_run.stdout_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    result = call("run.yaml", "--dry-run")
    assert result.exit_code == 0
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["training.num_episodes", "64", "run.yaml:5"] in words
    assert ["steps", *"4 of 16 episodes (2 scenarios x 8)".split()] in words


def test_a_dry_run_makes_what_the_config_names_and_counts_it(folder, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    held_out = [{"id": f"held-{i}", "user_responses": ["Hi"], "facts": {"price": "$4"}} for i in range(3)]
    (folder / "held.json").write_text(json.dumps(held_out))
    (folder / "my_rewards.py").write_text("async def polite(turns, context=None):\n    return 1.0\n")
    more = "rewards:\n  - {type: custom, module: my_rewards.polite}\n  - {type: helpfulness}\n"
    more += "environment_variables: {PLAIN_VARIABLE: x, SOME_API_KEY: canary}\n"
    training = "training: {num_episodes: 64, eval_scenarios_file: held.json, early_stopping: true, eval_every: 16}\n"
    (folder / "run.yaml").write_text(CONFIG.replace("training: {num_episodes: 64}\n", training) + more)
    result = call("run.yaml", "--dry-run")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for expected in (
        'rewards[0] = {"type": "custom", "weight": 1.0, "module": "my_rewards.polite"}  (run.yaml:7)',
        "evaluation: after every step: 3 held-out scenarios x 2 conversations",
        "early stopping: after 4 evaluations without improvement",
        "environment_variables.PLAIN_VARIABLE = x  (run.yaml:9)",
        "environment_variables.SOME_API_KEY = ***  (run.yaml:9)",
    ):
        assert expected in lines
    assert any(line.startswith("note: reward 'helpfulness' judges 1 of 1 scenarios") for line in lines)
    assert "canary" not in result.output


def test_a_run_that_evaluates_never_says_so_whatever_it_could_evaluate_on(folder):
    (folder / "held.json").write_text(json.dumps([{"user_responses": ["Hi"]}]))
    training = "training: {num_episodes: 64, eval_scenarios_file: held.json, eval_every: 0}\n"
    (folder / "run.yaml").write_text(CONFIG.replace("training: {num_episodes: 64}\n", training))
    assert "evaluation: never" in call("run.yaml", "--dry-run").stdout.splitlines()


def test_a_dry_run_sets_the_configs_environment_variables_before_it_imports_what_is_named(folder, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (folder / "env_rewards.py").write_text(
        "import os\nassert os.environ['CLI_DRY_RUN'] == 'here'\n\n\ndef fine(turns):\n    return 1.0\n"
    )
    more = "environment_variables: {CLI_DRY_RUN: here}\nrewards:\n  - {type: custom, module: env_rewards.fine}\n"
    (folder / "run.yaml").write_text(CONFIG + more)
    result = call("run.yaml", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_custom_reward_that_is_none_ends_with_2(folder):
    (folder / "my_rewards.py").write_text("polite = 5\n")
    (folder / "run.yaml").write_text(CONFIG + "rewards:\n  - {type: custom, module: my_rewards.polite}\n")
    result = call("run.yaml", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.startswith("config error in run.yaml, line 7: rewards[0].module")


def test_a_config_that_comes_with_the_package_is_found_from_any_folder(folder):
    result = call("configs/tutoring.yaml", "--dry-run", "--model-name", "stub://echo")
    assert result.exit_code == 0
    assert "note: configs/tutoring.yaml is not here: using the one that comes with the package." in result.stdout
    assert "scenarios: 6, each visited about 10.0 times" in result.stdout.splitlines()


def run_with(monkeypatch: pytest.MonkeyPatch, outcome: object) -> list[tuple[RunConfig, bool, Path | None]]:
    """Let the trainer return or raise `outcome`, and record what it was given."""
    calls: list[tuple[RunConfig, bool, Path | None]] = []

    def run_training(config: RunConfig, *, resume: bool = False, resume_from: Path | None = None) -> object:
        calls.append((config, resume, resume_from))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    trainer = ModuleType("stateset_agents.training.command")
    trainer.run_training = run_training  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, trainer.__name__, trainer)
    return calls


def test_the_report_goes_to_stdout_and_notes_to_stderr(folder, monkeypatch):
    calls = run_with(monkeypatch, "the report")
    result = call("run.yaml", "--num-episodes", "65", "--patience", "60", "--resume")
    assert result.exit_code == 0
    assert result.stdout == "the report\n"
    assert "80 episodes will be held" in result.stderr
    assert "training.patience has no effect: early_stopping is off" in result.stderr
    ((config, resume, resume_from),) = calls
    assert config.training.num_episodes == 65
    assert (resume, resume_from) == (True, None)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (TrainingStopped("no gradient"), 4, "no gradient"),
        (Interrupted("resume with: grpo-train run.yaml --resume"), 75, "resume with"),
        (KeyboardInterrupt(), 75, "nothing was saved"),
        (MemoryError(), 3, "--profile conservative"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, "--no-gpu"),
        (OSError(28, "No space left on device", "/full/metrics.jsonl"), 3, "cannot write /full/metrics.jsonl"),
        (ZeroDivisionError("division by zero"), 70, "internal error: ZeroDivisionError"),
    ],
)
def test_each_way_to_fail_has_its_exit_code_and_no_traceback(folder, monkeypatch, error, code, words):
    run_with(monkeypatch, error)
    result = call("run.yaml")
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_gpu_out_of_memory_is_recognised_without_torch(folder, monkeypatch):
    class OutOfMemoryError(RuntimeError):
        pass

    run_with(monkeypatch, OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"))
    result = call("run.yaml")
    assert result.exit_code == 3
    assert "out of memory: CUDA out of memory. Tried to allocate 2 GiB\n  use less" in result.stderr


def test_the_configs_variables_are_set_before_training_begins(folder, monkeypatch):
    (folder / "run.yaml").write_text(CONFIG + "environment_variables: {CLI_TEST_VARIABLE: here}\n")
    monkeypatch.setenv("CLI_TEST_VARIABLE", "x")
    monkeypatch.delenv("CLI_TEST_VARIABLE")
    run_with(monkeypatch, "done")
    assert call("run.yaml").exit_code == 0
    assert os.environ["CLI_TEST_VARIABLE"] == "here"
