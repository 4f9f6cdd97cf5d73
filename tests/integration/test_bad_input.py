"""Whatever a user gets wrong, through the real command: exit code, place, key and fix; no traceback; nothing lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

GOOD = {"id": "price", "user_responses": ["What does it cost?"]}


REWARD_CLASS = (
    "from stateset_agents.core.reward import RewardFunction\n"
    "class vowels(RewardFunction):\n"
    "    async def compute_reward(self, turns, context=None):\n"
    "        return 1.0\n"
)


def refused(work, *arguments: str, code: int, run: str = "outputs", **more):
    """Run it; it must end with `code`, without a traceback, without a word on stdout and without a run folder."""
    ended = work.train(*arguments, **more)
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert not (work.path / run).exists()
    return ended.err


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (b"", "bad.yaml: ", ["empty"]),
        (b"agent: {\n  model_name: [tiny\n", "bad.yaml, line 3: ", ["not valid YAML"]),
        (b"agent: !!python/object/apply:os.system [ls]\n", "bad.yaml, line 1: ", ["tag"]),
        (b"\x89PNG\x00\x01", "bad.yaml, line 1: ", ["not a text file"]),
        (b"- agent\n- environment\n", "bad.yaml, line 1: ", ["a list at the top"]),
        (b"agent: {model_name: tiny}\ntrainning: {}\n", "bad.yaml, line 2: ", ["trainning", 'did you mean "training"']),
        (
            b"training:\n  num_episodes: many\n",
            "bad.yaml, line 2: ",
            ["training.num_episodes", '"many"', "whole number"],
        ),
        (b"training:\n  batch_size: -2\n", "bad.yaml, line 2: ", ["training.batch_size is -2", "at least 1"]),
        (b"training:\n  learning_rate: .nan\n", "bad.yaml, line 2: ", ["training.learning_rate", "finite"]),
        (b"training:\n  learning_rate: 3\n", "bad.yaml, line 2: ", ["training.learning_rate is 3", "at most 1"]),
        (b"agent:\n  temperature: 0\n", "bad.yaml, line 2: ", ["agent.temperature is 0"]),
        (b"training: {}\nagent: {}\ntraining: {}\n", "bad.yaml, line 3: ", ["training", "twice"]),
        (b"training:\n  num_generations: 1\n", "bad.yaml, line 2: ", ["num_generations is 1", "a group of one"]),
        (b'{"agent": {"model_name": 3}}', "bad.yaml, line 1: ", ["agent.model_name is 3"]),
    ],
)
def test_a_config_that_is_wrong(work, content, place, words):
    (work.path / "bad.yaml").write_bytes(content)
    err = refused(work, config="bad.yaml", code=2)
    assert f"config error in {place}" in err
    for word in words:
        assert word in err


def test_a_config_that_is_not_there(work):
    err = refused(work, config="none.yaml", code=2)
    assert f"there is no file {work.path / 'none.yaml'}" in err


def test_all_problems_are_told_at_once(work):
    work.write(training__batch_size=0, agent__top_p=2, environment__max_turns="x")
    err = refused(work, code=2)
    assert err.count("config error in run.json, line ") == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["data error in run.json, line 8: environment.scenarios_file", "scenarios.json"]),
        ("", ["scenarios.json", "empty"]),
        ('{"scenarios": [\n  {"id": "a",}\n]}', ["scenarios.json", "line 2"]),
        ('{"scenarios": []}', ["scenarios.json", "at least one scenario"]),
        ('{"scenarios": 3}', ["scenarios.json", "holds a number"]),
        (
            f'[{{"id": "{"8" * 5000}",\n"user_responses": ["Hi"],\n"metadata": {{"n": -{"9" * 6000}}}}}]',
            ["scenarios.json, line 3: a number of 6000 digits"],
        ),
        (json.dumps([GOOD, GOOD]), ["scenarios.json", "scenarios[0]", "has already"]),
        (json.dumps([{"id": "mute"}]), ["scenarios.json", "mute", "user_responses"]),
        (json.dumps([{"id": "mute", "user_responses": []}]), ["scenarios.json", "mute", "user_responses"]),
        (json.dumps([{**GOOD, "user_respones": ["x"]}]), ["scenarios.json", "user_respones", "user_responses"]),
        (json.dumps([{"id": "a", "user_responses": "Hi"}]), ["scenarios.json", "user_responses", "list"]),
    ],
)
def test_a_scenario_file_that_is_wrong(work, content, words):
    file = work.path / "scenarios.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    err = refused(work, code=3)
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, 'there is no module "my_rewards"'),
        ("def vowels(: pass", "SyntaxError"),
        ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
        ("vowel = 1", 'has no "vowels"; did you mean "vowel"?'),
        ("vowels = 5", "is not a reward"),
        ("def vowels(): return 1.0", "cannot be called with (turns, context) or (turns)"),
        ("class vowels: pass", "is not a reward"),
        (
            f"{REWARD_CLASS}    def __init__(self):\n        self.judge = {{}}['url']\n",
            "making the reward vowels() raised KeyError: 'url' (my_rewards.py, line 6); mend its __init__",
        ),
        (
            f"{REWARD_CLASS}    def __init__(self):\n        super().__init__(wieght=2)\n",
            "got an unexpected keyword argument 'wieght' (my_rewards.py, line 6)",
        ),
        (
            f"{REWARD_CLASS}    def __init__(self, url): pass\n",
            "the reward class vowels cannot be made without arguments (missing a required argument: 'url')",
        ),
        (
            "from stateset_agents.core.reward import RewardFunction\nclass vowels(RewardFunction): pass",
            "the reward class vowels does not define compute_reward",
        ),
    ],
)
def test_a_custom_reward_that_is_no_reward(work, source, words):
    file = work.path / "my_rewards.py"
    if source is None:
        file.unlink()
    else:
        file.write_text(source)
    err = refused(work, code=2)
    assert "config error in run.json, line 12: rewards[0].module" in err
    assert words in err


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero (reward 'vowels', my_rewards.py, line 2)"),
        (
            "return float('nan')",
            "score is nan; a reward must be a finite number, of size 1e+12 at most (reward 'vowels'",
        ),
        (
            "return None",
            "reward 'vowels' returned None; it must return a number or a RewardResult; a `return` is missing?",
        ),
        ("return 'good'", "reward 'vowels' returned 'good'"),
    ],
)
def test_a_custom_reward_that_raises_or_gives_no_number_stops_the_run_at_its_first_step(work, body, words):
    (work.path / "my_rewards.py").write_text(f"async def vowels(turns, context=None):\n    {body}\n")
    ended = work.train()
    assert ended.code == 4
    assert (
        "training stopped: no conversation of the first step could be scored.\n  4 of 4 failed in the reward"
        in ended.err
    )
    assert words in ended.err
    assert "the rewards are named in run.json, line 11" in ended.err
    assert "Traceback" not in ended.err
    assert work.status()["state"] == "failed"
    assert work.metrics() == []
    errors = [json.loads(line)["error"] for line in (work.path / "outputs/trajectories.jsonl").read_text().splitlines()]
    assert len(errors) == 4
    assert all(words.partition(" (")[0] in error for error in errors)


def test_after_the_reward_is_mended_the_same_run_begins_again(work):
    good = (work.path / "my_rewards.py").read_text()
    (work.path / "my_rewards.py").write_text("async def vowels(turns, context=None):\n    return 1 / 0\n")
    assert work.train().code == 4
    (work.path / "my_rewards.py").write_text(good)
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert len(work.metrics()) == 4


def test_a_reward_that_always_says_the_same_stops_the_run_with_what_to_do(work):
    (work.path / "my_rewards.py").write_text("async def vowels(turns, context=None):\n    return 0.5\n")
    ended = work.train("--num-episodes", "64")
    assert ended.code == 4
    assert (
        "10 steps in a row had nothing to learn from: all conversations of each group got the same reward" in ended.err
    )
    assert "raise the temperature or num_generations" in ended.err
    assert len(work.metrics()) == 10
    assert (work.path / "outputs" / "checkpoints" / "step-10").is_dir()


def test_a_model_path_that_does_not_exist(work):
    for name in ("./no-such-model", "/no/such/model"):
        err = refused(work, "--model-name", name, code=3)
        assert "model error: there is no model folder" in err
        assert name.removeprefix("./") in err
        assert "smollm2-135m-instruct" in err  # what may be named instead


def test_a_model_without_a_chat_template(work):
    from stateset_agents.models import load_model, save_model_folder

    folder = work.path / "no-template"
    save_model_folder(load_model("tiny"), folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ended = work.train("--model-name", "no-template")
    assert ended.code == 3
    assert "no-template" in ended.err
    assert "chat template" in ended.err
    assert "Traceback" not in ended.err


def test_a_folder_that_is_no_model(work):
    (work.path / "no-model").mkdir()
    err = refused(work, "--model-name", "no-model", code=3)
    assert "no-model has no config.json" in err


def test_the_documented_default_model_is_refused_with_what_would_fit(work):
    work.write(agent__model_name=None)
    err = refused(work, "--no-gpu", code=3)
    assert "openai/gpt-oss-120b" in err
    assert "does not fit here" in err
    assert "What would fit: smollm2-135m-instruct, tiny" in err


def test_a_first_prompt_longer_than_the_context(work):
    work.scenarios([GOOD, {"id": "endless", "user_responses": ["word " * 4000, "Thanks."]}])
    ended = work.train()
    assert ended.code == 3
    assert "data error: 1 of 2 scenarios leave no room for a reply: the first prompt of" in ended.err
    assert '"endless" has 12010 tokens, but the model\'s context is 4096' in ended.err
    assert "shorten system_prompt, agent_context or the first user turn" in ended.err
    assert "Traceback" not in ended.err
    assert "indexing errors" not in ended.err
    work.scenarios([GOOD, {"id": "endless", "user_responses": ["word", "Thanks."]}])
    assert work.train("--resume").code == 0


def test_an_agent_of_ones_own_whose_first_prompt_is_too_long_stops_when_it_is_played(work):
    (work.path / "my_agents.py").write_text(
        "from stateset_agents import MultiTurnAgent\n"
        "class Chatty(MultiTurnAgent):\n"
        "    async def process_turn(self, history, user_input, context=None):\n"
        "        return await super().process_turn(history, user_input * 4000, context)\n"
    )
    work.write(agent={"type": "custom", "class": "my_agents.Chatty", "model_name": "tiny", "max_new_tokens": 6})
    ended = work.train()
    assert ended.code == 3
    assert "data error: scenario 'price': its first prompt has" in ended.err


def test_an_agent_of_ones_own_that_does_not_begin_as_one_is_refused_with_the_line(work):
    """Mutation: no check, and what it lacks is an internal error."""
    (work.path / "my_agents.py").write_text(
        "from stateset_agents import MultiTurnAgent\n"
        "class Forgetful(MultiTurnAgent):\n"
        "    def __init__(self, config):\n"
        "        self.mood = 'good'\n"
    )
    work.write(agent={"type": "custom", "class": "my_agents.Forgetful", "model_name": "tiny", "max_new_tokens": 6})
    err = refused(work, code=2)
    assert (
        "config error in run.json, line 4: agent.class: Forgetful.__init__ (my_agents.py, line 3) does not call" in err
    )
    assert "super().__init__(config)" in err


def test_an_output_folder_that_cannot_be_made(work):
    (work.path / "file").write_text("precious")
    for folder, words in (("file", "file"), ("file/below", "file"), ("/proc/run", "/proc/run")):
        ended = work.train("--output-dir", folder)
        assert ended.code == 3, ended.err
        assert "run folder error: " in ended.err
        assert words in ended.err
        assert "--output-dir" in ended.err
        assert "Traceback" not in ended.err
    assert (work.path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(work):
    (work.path / "closed").mkdir(mode=0o500)
    ended = work.train("--output-dir", "closed/run")
    assert ended.code == 3
    assert "choose a folder that you may write with --output-dir" in ended.err


def test_files_that_a_run_would_overwrite_are_left_alone(work):
    (work.path / "outputs" / "final_model").mkdir(parents=True)
    (work.path / "outputs" / "final_model" / "precious").write_text("data")
    ended = work.train()
    assert ended.code == 3
    assert "outputs holds final_model, which this run would overwrite" in ended.err
    assert work.snapshot() == {"final_model/precious": b"data"}


FULL = """
import errno, os
from stateset_agents.{module} import {name}
real = {name}.{method}
count = 0
def full(*arguments, **more):
    global count
    count += 1
    if count == {at}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the-disk")
    return real(*arguments, **more)
{name}.{method} = full
"""


@pytest.mark.parametrize(
    ("module", "name", "method", "at"),
    [
        ("tracking", "disk", "os.open", 1),
        ("tracking", "jsonl", "os.write", 12),
        ("checkpoints", "writer", "_write_tensors", 1),
        ("checkpoints", "writer", "_seal", 2),
    ],
)
def test_a_disk_that_fills_up_ends_the_run_with_a_message_and_loses_nothing(work, module, name, method, at):
    assert work.train("--output-dir", "whole").code == 0
    ended = work.train(before=FULL.format(module=module, name=name, method=method, at=at))
    assert ended.code == 3, ended.err
    assert "the disk is full" in ended.err
    assert "free some space" in ended.err
    assert "Traceback" not in ended.err
    checkpoints = work.path / "outputs" / "checkpoints"
    assert not [file for file in checkpoints.glob("*") if file.name.startswith(".")]
    again = ["--resume"] if (work.path / "outputs" / "status.json").exists() else []
    assert work.train(*again).code == 0
    assert work.metrics() == work.metrics("whole")
    assert_same_model(work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB; a run of the tiny model needs more."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk(work, small_disk):
    ended = work.train("--output-dir", "disk/run")
    assert ended.code == 3
    assert "the disk is full" in ended.err
    assert "\n  grpo-train run.json --output-dir disk/run --resume\n" in ended.err
    assert "Traceback" not in ended.err
    assert work.status("disk/run")["state"] in ("failed", "running")
    shutil.copytree(small_disk / "run", work.path / "outputs")  # a larger disk
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert work.train("--output-dir", "whole").code == 0
    assert work.metrics() == work.metrics("whole")
    assert_same_model(work)


def assert_same_model(work) -> None:
    one, other = (work.path / run / "final_model" / "model.safetensors" for run in ("outputs", "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_debug_shows_the_traceback_of_what_goes_wrong_in_a_run(work):
    ended = work.train("--model-name", "./no-such-model", "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert "model error: there is no model folder" in ended.err


def test_a_fault_of_the_program_is_called_one(work):
    before = "from stateset_agents.training import learner\nlearner.Learner.step = lambda self, *a, **k: 1 / 0"
    ended = work.train(before=before)
    assert ended.code == 70
    assert "internal error: ZeroDivisionError: division by zero" in ended.err
    assert "run again with --debug" in ended.err
    assert "Traceback" not in ended.err
    assert work.status()["message"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "method", ["def notices(self): return [self.word]", "def episode_scenarios(self): return int('x')"]
)
def test_a_fault_of_code_that_the_config_names_is_called_one(work, method):
    """Mutation: it is called a fault of the program."""
    (work.path / "my_world.py").write_text(
        f"from stateset_agents import ConversationEnvironment\nclass World(ConversationEnvironment):\n    {method}\n"
    )
    work.write(environment={"type": "custom", "class": "my_world.World", "scenarios_file": "scenarios.json"})
    for arguments in ((), ("--dry-run",)):
        ended = work.train(*arguments)
        assert ended.code == 4, ended.err
        assert "error in your own code: " in ended.err
        assert "(my_world.py, line 3)\n  run again with --debug for the traceback" in ended.err
        assert "Traceback" not in ended.err
        assert not (work.path / "outputs").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "status.json", "checkpoints/x.log", "run.lock", "."])
def test_the_log_is_no_file_that_the_run_writes(work, name):
    """Mutation: any name: warnings about lines of the log among the metrics become lines of the log, without end."""
    work.write(logging={"log_file": name})
    ended = work.train()
    assert ended.code == 2
    assert f'logging.log_file is "{name}"' in ended.err
    assert not (work.path / "outputs").exists()


GROUP_REWARD = """
from stateset_agents.core.reward import GroupReward
class Longest(GroupReward):
    async def compare(self, conversations, context=None):
        return [float(len(turns[-1].content)) for turns in conversations]
"""
NO_WANDB = "import sys; sys.modules['wandb'] = None"


def refused_dry_or_not(work, *arguments: str, code: int, **more):
    """The dry run and the run itself must end with the same words, and make nothing. Mutation: either does not ask."""
    before = sorted(work.path.rglob("*"))
    dry, real = work.train(*arguments, "--dry-run", **more), work.train(*arguments, **more)
    assert (dry.code, real.code) == (code, code), dry.err + real.err
    assert real.err.endswith(dry.err)
    assert dry.err
    assert "Traceback" not in dry.err
    assert sorted(path for path in work.path.rglob("*") if "__pycache__" not in path.parts) == before
    return dry.err


@pytest.mark.parametrize("arguments", [(), ("--resume", "--seed", "7")])
def test_a_used_folder_is_refused_dry_or_not(work, arguments):
    assert work.train("--num-episodes", "4").code == 0
    before = work.snapshot()
    dry, real = work.train(*arguments, "--dry-run"), work.train(*arguments)
    assert dry.code == real.code == (2 if arguments else 3)
    words = "training.seed is 7, but the run in outputs has 0" if arguments else "outputs already holds a run"
    assert words in dry.err
    assert words in real.err
    assert work.snapshot() == before


def test_a_dry_run_tells_where_a_run_would_go_on_and_touches_nothing(work):
    assert work.train("--num-episodes", "8").code == 0
    before = work.snapshot()
    dry = work.train("--resume", "--dry-run")
    assert dry.code == 0, dry.err
    assert "resumes: outputs from step-2\n" in dry.out
    assert work.snapshot() == before


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "words"),
    [
        (("--resume",), {}, 3, "outputs does not exist, so there is no run to read or resume there"),
        (("--resume-from", "nowhere"), {}, 3, "there is no checkpoint nowhere"),
        (("--output-dir", "run.json"), {}, 3, "run.json cannot be a run folder: part of that path is a file"),
        (("--output-dir", "run.json/below"), {}, 3, "part of that path is a file"),
        (("--wandb-project", "mine"), {}, 2, "logging.wandb needs the package wandb, which is not installed"),
        ((), {"logging": {"log_file": "../run.json/log.txt"}}, 2, "which cannot be written (Not a directory)"),
        ((), {"logging": {"log_file": "x" * 300}}, 2, "which cannot be written (File name too long)"),
        ((), {"logging": {"log_file": ".."}}, 2, "which cannot be written (Is a directory)"),
        ((), {"logging": {"tensorboard": {"log_dir": "run.json"}}}, 2, 'run.json", which cannot be written (Not a'),
        (
            ("--model-name", "stub://Hello"),
            {"training": {"algorithm": "sft", "data_file": "data.jsonl", "eval_every": 0}, "rewards": None},
            3,
            "a model without weights learns nothing from a file: take one with weights",
        ),
        (
            (),
            {"rewards": [{"type": "custom", "module": "group.Longest"}], "training__early_stopping": True}
            | {"training__eval_every": 8},
            2,
            "early_stopping watches the mean reward, but longest compares conversations with each other",
        ),
        (
            (),
            {"agent": {"type": "custom", "class": "group.Silent", "model_name": "tiny"}},
            2,
            "Silent has no model that could be trained",
        ),
    ],
)
def test_what_can_be_known_is_refused_before_anything_is_made_dry_or_not(work, arguments, changes, code, words):
    silent = "class Silent(Agent):\n    async def process_turn(self, history, user_input, context=None): ...\n"
    (work.path / "group.py").write_text(f"{GROUP_REWARD}\nfrom stateset_agents.agents import Agent\n{silent}")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (work.path / "data.jsonl").write_text(json.dumps({"messages": messages}))
    work.write(**changes)
    assert words in refused_dry_or_not(work, *arguments, code=code, before=NO_WANDB)


def test_adapters_on_merged_weights_are_refused_dry_or_not(work):
    assert work.train("--num-episodes", "4").code == 0
    work.write(training__lora={"r": 4})
    err = refused_dry_or_not(work, "--resume-from", "outputs", "--output-dir", "next", code=2)
    assert "holds merged weights" in err


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        (
            [{"type": "custom", "module": "group.Longest", "weight": 0.5}],
            [
                "rewards[0].weight has no effect: longest compares conversations and is no part of a sum",
                "combination_method has no effect: there is one reward, and nothing to combine it with",
            ],
        ),
        (
            [{"type": "safety"}],
            ["combination_method has no effect: there is one reward, and nothing to combine it with"],
        ),
        (None, ["combination_method has no effect: there are no rewards, and the default one has its own"]),
        (
            [{"type": "safety"}, {"type": "helpfulness", "weight": 0.5}],
            ["rewards[1].weight has no effect: combination_method max takes the scores as they are"],
        ),
        ([{"type": "safety"}, {"type": "helpfulness"}], []),
    ],
)
def test_what_rewards_have_no_use_for_is_told_dry_or_not(work, rewards, told):
    (work.path / "group.py").write_text(GROUP_REWARD)
    work.write(rewards=rewards, combination_method="max", agent__model_name="stub://Hello|Good day", training=None)
    dry, real = work.train("--num-episodes", "4", "--dry-run"), work.train("--num-episodes", "4")
    assert (dry.code, real.code) == (0, 0), dry.err + real.err
    assert [line for line in real.err.splitlines() if "no effect" in line] == [f"WARNING {line}." for line in told]
    shown = [line.replace(" has no effect: ", " (") + ")" for line in told]
    assert [line for line in dry.out.splitlines() if "no effect" in line] == [f"no effect: {line}" for line in shown]


@pytest.mark.parametrize("name", ["report.txt", "started_from.txt"])
def test_what_a_run_would_write_over_is_refused(work, name):
    (work.path / "outputs").mkdir()
    (work.path / "outputs" / name).write_text("precious")
    work.write()
    ended = work.train()
    assert ended.code != 0
    assert f"holds {name}, which this run would overwrite" in ended.err
    assert (work.path / "outputs" / name).read_text() == "precious"


def test_an_empty_output_folder_is_a_mistake(work):
    work.write()
    ended = work.train("--output-dir", "")
    assert ended.code == 2
    assert "--output-dir is empty" in ended.err
    assert not (work.path / "outputs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"environment__scenarios_file": "x" * 300},
        {"training__eval_scenarios_file": "x" * 300},
        {"agent__model_name": "x" * 300},
    ],
)
def test_a_name_that_no_file_can_have_is_told(work, changes):
    work.write(**changes)
    ended = work.train()
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    assert "xxxx" in ended.err


@pytest.mark.parametrize("limit", [8, 10])
def test_too_few_open_files_are_told_with_the_limit_that_helps(work, limit):
    """Another folder would not help: 8 are too few to begin a run, 10 to save a checkpoint."""
    few = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    ended = work.train(before=few)
    assert ended.code == 3, ended.err
    assert "at least twice what `ulimit -n` shows" in ended.err
    assert "--output-dir (in Python" not in ended.err
    assert "internal error" not in ended.err
