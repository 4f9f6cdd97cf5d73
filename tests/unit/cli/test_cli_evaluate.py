"""`grpo-evaluate`: what it takes, what it prints and saves, and the code it ends with."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stateset_agents.agents import AgentConfig, MultiTurnAgent, ToolAgent
from stateset_agents.agents.session import EngineFailed
from stateset_agents.checkpoints import read_checkpoint, write_checkpoint
from stateset_agents.cli import evaluate as command
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ModelError
from stateset_agents.core.reward import CorrectnessReward, HelpfulnessReward, reward_function
from stateset_agents.training import evaluating
from stateset_agents.training.changes import evaluation_record
from stateset_agents.training.run import Run
from stateset_agents.training.saving import Subject, save_final

SEEN = [{"id": "seen", "user_responses": ["Hi.", "Bye."], "facts": {"price": "$5"}}]
UNSEEN = [
    {"id": f"unseen-{n}", "user_responses": [f"What costs the kettle {n}?", "Thanks."], "facts": {"price": "$25"}}
    for n in range(3)
]


OFFERING = """\
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import RewardResult


class Shop(ConversationEnvironment):
    def episode_tools(self, state):
        def buy() -> str:
            return "bought"

        return [buy]


def mute(turns, context=None):
    return RewardResult.unscored("there is nothing to say")
"""


async def kind(turns, context=None):
    return 1.0


def save(folder: Path, *, tools: list[Any] = (), reward: Any = None, seed: int = 0, **config: Any) -> Path:
    """A checkpoint as a finished run leaves it, of a tiny model whose weights are those that it began with."""
    settings = AgentConfig(**{"model_name": "tiny", "max_new_tokens": 6, "temperature": 1.0, **config})
    agent = ToolAgent(settings, tools) if tools else MultiTurnAgent(settings)
    environment, unseen = ConversationEnvironment(SEEN), ConversationEnvironment(UNSEEN)
    training = TrainingConfig.from_profile("balanced")
    run = Run(agent, environment, reward or HelpfulnessReward(), training, evaluation=unseen)
    records = {"run": run.settings, "evaluation": evaluation_record(run)}

    async def saved() -> Path:
        await agent.initialize()
        if seed:
            _disturb(agent, seed)
        path = save_final(folder, Subject(agent, environment, run.reward, records), 3)
        await agent.aclose()
        return path

    return asyncio.run(saved())


def _disturb(agent: MultiTurnAgent, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.runtime.model.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints that no test changes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder / "first", seed=1)
    save(folder / "stub", model_name="stub://It costs $25.", max_new_tokens=32)
    save(folder / "own", model_name="stub://echo", reward=reward_function(kind))
    save(folder / "tools", model_name="stub://echo", tools=[kind_of_tool])
    answers = CorrectnessReward(ground_truth={"unseen-0": "$25", "unseen-1": "$25", "unseen-2": "$25"})
    save(folder / "answers", model_name="stub://echo", reward=answers)
    return folder


def kind_of_tool(order: str) -> str:
    """Find an order."""
    return order


@pytest.fixture
def folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the checkpoints in it and some files."""
    for path in kept.iterdir():
        (tmp_path / path.name).symlink_to(path)
    scenarios = {"scenarios": [{"id": "new", "user_responses": ["What is it?"]}]}
    (tmp_path / "new.json").write_text(json.dumps(scenarios))
    (tmp_path / "broken.json").write_text('{"scenarios": [\n  {"id": "new",}\n]}')
    (tmp_path / "lines.jsonl").write_text('{"id": "new"}\n{"id": "old"}\n')
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": [{"goal": "x"}]}))
    (tmp_path / "sheet.csv").write_text("id,text\n1,Hi\n")
    (tmp_path / "bad.yaml").write_text("agent: {temprature: 1}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command.app, list(arguments), prog_name="grpo-evaluate")


def evaluated(*arguments: str, ends: int = 0) -> dict[str, Any]:
    result = call(*arguments, "--output-file", "results.json")
    assert result.exit_code == ends, result.output
    data = json.loads(Path("results.json").read_text())
    assert isinstance(data, dict)
    return data


def test_a_checkpoint_is_all_that_it_needs(folder):
    result = call("stub", "--num-episodes", "3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["Agent Evaluation Results", "========================"]
    assert "Checkpoint: stub" in lines
    assert "Episodes: 3" in lines
    assert "- Average Episode Length: 2.0 ± 0.0 turns (do nothing 2.0)" in lines
    assert "- scenarios: the 3 scenarios that the run held out of training" in lines
    assert "- untrained was not measured: stub://It costs $25. has no weights that could have been trained" in lines


def test_the_same_key_gives_the_same_evaluation_to_the_bit_and_another_another(folder):
    clocks = {"seconds", "timestamp"}

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key not in clocks}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    first, again = (timeless(evaluated("first", "--num-episodes", "6")) for _ in range(2))
    assert first == again
    assert first["floors"]["untrained"]["result"]["reward"] is not None
    other = timeless(evaluated("first", "--num-episodes", "6", "--key", "another", "--no-floors"))
    said = [[turn["content"] for turn in one["turns"]] for data in (first, other) for one in data["episodes"]]
    assert said[:6] != said[6:]


def test_the_weights_are_the_checkpoints_and_the_floor_is_the_model_before(folder):
    data = evaluated("first", "--compare-with", "first", "--num-episodes", "3")
    floors = data["floors"]
    assert floors["untrained"]["about"] == "tiny as it was before the run"
    assert floors["untrained"]["result"]["components"] != data["components"]
    assert floors["do nothing"]["result"]["components"]["helpfulness"]["mean"] == 0.0
    compared = data["comparison"]
    assert compared["reward"] == {
        "mean": 0.0,
        "low": 0.0,
        "high": 0.0,
        "scenarios": 3,
        "verdict": "too few scenarios to tell",
    }


def test_samples_give_pass_rates(folder):
    data = evaluated("first", "--trials", "2", "--no-floors")
    assert (data["samples"], len(data["episodes"]), data["floors"]) == (2, 6, {})


def test_a_file_of_scenarios_and_a_config_win(folder):
    (folder / "mine.yaml").write_text(
        "agent: {temperature: 0.5, max_new_tokens: 3}\n"
        "environment: {scenarios_file: new.json, max_turns: 1}\n"
        "rewards: [{type: custom, module: my_reward.kindly}]\n"
    )
    (folder / "my_reward.py").write_text("def kindly(turns, context=None):\n    return 0.25\n")
    data = evaluated("first", "--config-file", "mine.yaml", "--num-episodes", "2", "--no-floors")
    assert [row["id"] for row in data["by_scenario"]] == ["new"]
    assert data["reward"]["mean"] == 0.25
    assert "scenarios: those of mine.yaml" in data["notes"]
    data = evaluated("first", "--scenarios-file", "new.json", "--num-episodes", "2", "--no-floors")
    assert [row["id"] for row in data["by_scenario"]] == ["new"]
    sys.modules.pop("my_reward", None)


def test_a_file_of_scenarios_is_found_where_data_lies(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    (folder / "new.json").rename(folder / "elsewhere" / "new.json")
    monkeypatch.setenv("GRPO_DATA_DIR", str(folder / "elsewhere"))
    data = evaluated("stub", "--scenarios-file", "new.json", "--num-episodes", "1", "--no-floors")
    assert [row["id"] for row in data["by_scenario"]] == ["new"]
    shipped = "data/customer_service_heldout.json"
    data = evaluated("stub", "--scenarios-file", shipped, "--num-episodes", "1", "--no-floors")
    assert data["by_scenario"][0]["id"].startswith("heldout-")


def test_a_base_model_that_is_not_here_is_not_downloaded(folder):
    kept = read_checkpoint(folder / "first")
    records = {stem: kept.record(stem) for stem in kept.manifest.records}
    records["agent"]["config"]["model_name"] = "someone/else"
    model = [file for file in kept.path.iterdir() if file.stem not in (*records, "manifest")]

    def copied(path: Path) -> None:
        for file in model:
            shutil.copy(file, path)

    write_checkpoint(folder / "renamed", records=records, parts={".": copied})
    data = evaluated("renamed", "--num-episodes", "3")
    assert data["reward"] is not None
    floor = data["floors"]["untrained"]
    assert floor["result"] is None
    assert floor["why_not"] == "someone/else is not on this machine, and nothing is downloaded for it"


def test_floors_play_where_the_environment_offers_tools(folder):
    (folder / "offering.py").write_text(OFFERING)
    agent = {"type": "tool", "model_name": "tiny", "max_new_tokens": 6}
    environment = {"type": "custom", "class": "offering.Shop", "scenarios_file": "new.json"}
    (folder / "shop.json").write_text(json.dumps({"agent": agent, "environment": environment}))
    data = evaluated("first", "--config-file", "shop.json", "--num-episodes", "2")
    assert {name for name, floor in data["floors"].items() if floor["result"]} == {"do nothing", "untrained"}


def test_a_comparison_without_scores_is_left_out_and_the_rest_is_printed(folder):
    (folder / "offering.py").write_text(OFFERING)
    (folder / "mute.json").write_text(json.dumps({"rewards": [{"type": "custom", "module": "offering.mute"}]}))
    arguments = ("--config-file", "mute.json", "--compare-with", "stub", "--num-episodes", "3", "--no-floors")
    data = evaluated("first", *arguments, ends=4)
    assert (data["comparison"], data["failures"]) == (None, {"unscored": 3})
    assert data["notes"][-1].startswith("not compared with stub: the two evaluations share no scored scenario")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ModelError("the model is gone"), 3, "model error: the model is gone"),
        (EngineFailed("the engine broke"), 70, "the engine broke"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 3, "out of memory: CUDA out of memory"),
    ],
)
@pytest.mark.parametrize("compared", [True, False])
def test_what_was_measured_before_an_error_is_printed_and_saved(folder, monkeypatch, compared, error, code, told):
    played = evaluating.evaluate
    calls = []

    async def breaking(agent, *arguments, **keywords):
        calls.append(agent)
        if len(calls) > 1:
            raise error
        return await played(agent, *arguments, **keywords)

    monkeypatch.setattr(evaluating, "evaluate", breaking)
    other = ["--compare-with", "first", "--no-floors"] if compared else []
    result = call("stub", "--num-episodes", "3", *other, "--output-file", "results.json")
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert "Episodes: 3" in result.stdout
    missing = "first" if compared else "the floors"
    assert f"- it was ended by an error before {missing} had been played" in result.stdout
    saved = json.loads(Path("results.json").read_text())
    assert (saved["failure"], len(saved["episodes"])) == (f"{type(error).__name__}: {error}", 3)


def test_what_the_tools_of_an_agent_can_never_do_is_said(folder):
    actions = [{"name": name, "tool": name} for name in ("refund", "cancel")]
    tasks = [{"goal": "x", "required_actions": actions}]
    (folder / "tasks.json").write_text(json.dumps({"tasks": tasks}))
    (folder / "mine.json").write_text(json.dumps({"environment": {"type": "task", "tasks_file": "tasks.json"}}))
    result = call("stub", "--config-file", "mine.json", "--no-floors", "--num-episodes", "1")
    assert result.exit_code == 0, result.output
    assert "- stub: task 'task-0': the action 'refund' can never be done" in result.stdout
    assert ", and 1 more" in result.stdout


def test_every_episode_is_told_as_it_ends(folder):
    result = call("stub", "--verbose", "--no-floors", "--num-episodes", "3")
    assert result.stdout.index("[1/3] unseen-") < result.stdout.index("[3/3] unseen-")
    assert "  assistant: It costs $25." in result.stdout
    assert result.stdout.index("[3/3]") < result.stdout.index("Agent Evaluation Results")


def test_the_page_is_written(folder):
    assert call("stub", "--no-floors", "--num-episodes", "3", "--html", "page.html").exit_code == 0
    assert "It costs $25." in (folder / "page.html").read_text()


def test_a_checkpoint_of_other_tools_and_scenarios_is_compared_and_said_to_be_one(folder):
    (folder / "trained_on.json").write_text(json.dumps(SEEN))
    result = call("stub", "--compare-with", "tools", "--scenarios-file", "trained_on.json", "--no-floors")
    assert result.exit_code == 2
    assert "names the tools kind_of_tool of its agent" in result.stderr
    result = call("stub", "--compare-with", "first", "--scenarios-file", "trained_on.json", "--no-floors")
    assert "- stub was trained on 1 of the 1 scenario" in result.stdout
    assert "- first was trained on 1 of the 1 scenario" in result.stdout
    assert "different" not in result.stdout


def test_a_checkpoint_of_another_prompt_and_reward_is_said_to_be_one(folder):
    save(folder / "polite", model_name="stub://echo", system_prompt="Be polite.")
    result = call("polite", "--compare-with", "answers", "--no-floors", "--num-episodes", "3")
    assert "- Verdict: too few scenarios to tell, by the reward of 3 scenarios" in result.stdout
    assert "- polite and answers have different system prompts" in result.stdout
    assert "- polite and answers were trained for different rewards, and are judged by that of polite" in result.stdout
    (folder / "judge.json").write_text(json.dumps({"rewards": [{"type": "helpfulness"}]}))
    result = call("polite", "--compare-with", "answers", "--no-floors", "--config-file", "judge.json", "--samples", "1")
    assert "for different rewards, and are judged by that of judge.json" in result.stdout.replace(str(folder) + "/", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "CHECKPOINT_PATH"),
        (["nowhere"], 3, "there is no checkpoint nowhere: no such folder"),
        (["empty"], 3, "empty is no run and no checkpoint"),
        (["begun"], 3, "begun is a run that was stopped before its first checkpoint"),
        (["model"], 3, "model is a model folder, not a checkpoint"),
        (["new.json"], 3, "new.json is a file; a checkpoint is a folder"),
        (["own"], 2, "test_cli_evaluate.kind. A checkpoint's word is not enough"),
        (["tools"], 2, "names the tools kind_of_tool of its agent"),
        (["stub", "--num-episodes", "0"], 2, "--num-episodes is 0; it must be at least 1"),
        (["stub", "--samples", "-1"], 2, "--samples is -1; it must be at least 1"),
        (["stub", "--num-episodes", "many"], 2, "'--num-episodes'"),
        (
            ["stub", "--metrics", "reward,lenght"],
            2,
            '--metrics has "lenght", which does not exist; did you mean "length"?',
        ),
        (["stub", "--metrics", ""], 2, '--metrics has "", which does not exist'),
        (
            ["stub", "--output-file", "no/such/results.json"],
            2,
            "--output-file is no/such/results.json, and there is no folder",
        ),
        (["stub", "--output-file", "empty"], 2, "--output-file is empty, which is a folder; name a file"),
        (["stub", "--html", "no/page.html"], 2, "--html is no/page.html, and there is no folder"),
        (
            ["stub", "--output-file", "/proc/x.json"],
            2,
            "is /proc/x.json, which cannot be written: No such",
        ),
        (["stub", "--html", "/proc/x.html"], 2, "--html is /proc/x.html, which cannot be written: No such"),
        (["stub", "--output-file", "/dev/null"], 2, "--output-file is /dev/null, a device or a pipe"),
        (["stub", "--html", f"{'x' * 260}.html"], 2, "cannot be written: File name too long"),
        (["stub", "--scenarios-file", "nowhere.json"], 3, "scenarios file nowhere.json does not exist"),
        (["stub", "--scenarios-file", "broken.json"], 3, "line 2"),
        (["stub", "--scenarios-file", "lines.jsonl"], 3, "line 2"),
        (["stub", "--scenarios-file", "tasks.json"], 3, "tasks.json has the unknown key 'tasks'"),
        (["stub", "--scenarios-file", "sheet.csv"], 3, "sheet.csv"),
        (["stub", "--config-file", "nowhere.yaml"], 2, "there is no file"),
        (["stub", "--config-file", "bad.yaml"], 2, "bad.yaml, line 1: agent.temprature is not a known key"),
        (["stub", "--compare-with", "nowhere"], 3, "there is no checkpoint nowhere"),
        (["stub", "--compare-with", "own", "--scenarios-file", "nowhere.json"], 3, "nowhere.json does not exist"),
        (["answers", "--scenarios-file", "new.json"], 2, "ground"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_with_its_code_before_anything_is_played(folder, arguments, code, message):
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert not list(folder.glob("results*"))


def test_an_evaluation_in_which_nothing_could_be_scored_is_no_success(folder):
    (folder / "failing.py").write_text("def kind(turns):\n    raise KeyError('price')\n")
    (folder / "mine.yaml").write_text("rewards: [{type: custom, module: failing.kind}]\n")
    result = call("stub", "--no-floors", "--num-episodes", "3", "--config-file", "mine.yaml")
    assert result.exit_code == 4
    assert (
        "- 3 of 3 episodes are in no mean (3 reward); the first error: compute_reward: KeyError: 'price'"
        in result.stdout
    )
    assert "no episode could be scored" in result.stderr
    sys.modules.pop("failing")


def test_code_that_a_checkpoint_names_is_not_run(folder, monkeypatch):
    (folder / "canary_module.py").write_text("open('canary', 'w').close()\n\n\ndef kind(turns):\n    return 1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    kept = read_checkpoint(folder / "stub")
    records = {stem: kept.record(stem) for stem in kept.manifest.records}
    records["reward"] = {"config": {"type": "custom", "module": "canary_module.kind", "weight": 1.0}}
    write_checkpoint(folder / "named", records=records)
    result = call("named", "--no-floors", "--num-episodes", "1")
    assert result.exit_code == 2
    assert "named names the reward canary_module.kind." in result.stderr
    assert not (folder / "canary").exists()
    (folder / "mine.yaml").write_text("rewards: [{type: custom, module: canary_module.kind}]\n")
    result = call("named", "--no-floors", "--num-episodes", "3", "--config-file", "mine.yaml")
    assert "- Average Reward: 1.000 ± 0.000" in result.stdout
    assert (folder / "canary").exists()
    sys.modules.pop("canary_module")


def test_help_teaches_every_documented_flag_without_loading_torch(folder):
    script = (
        "import sys\nfrom stateset_agents.cli.evaluate import app\n"
        "try:\n    app({!r})\nexcept SystemExit:\n    pass\n"
        "assert not {{'torch', 'transformers', 'fastapi'}} & set(sys.modules)"
    )
    shown = ""
    for arguments in (["--help"], ["--version"], ["nowhere", "--metrics", "x"]):
        done = subprocess.run(
            [sys.executable, "-c", script.format(arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shown += done.stdout
    flags = "config-file num-episodes scenarios-file output-file metrics verbose compare-with help samples trials html"
    for flag in [*flags.split(), "no-floors", "key", "version"]:
        assert f"--{flag}" in shown
    words = " ".join(shown.split())
    assert "[default: 100]" in words
    assert "[default: reward,length,success_rate" in words
    assert "Exit codes: 0 done; 2 config" in words
