"""Opening a checkpoint: what its records are believed, and what only the operator's own config may name."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from stateset_agents.agents import AgentConfig, MultiTurnAgent, ToolAgent
from stateset_agents.agents.local_chat import LocalChat
from stateset_agents.agents.toolbox import ToolLimits
from stateset_agents.checkpoints import PROGRESS, read_checkpoint, write_checkpoint
from stateset_agents.checkpoints.manifest import FileEntry, Manifest, hash_file
from stateset_agents.config import load_config
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment, Environment, TaskEnvironment
from stateset_agents.core.errors import CheckpointError, ConfigError, DataError
from stateset_agents.core.reward import CompositeReward, HelpfulnessReward, RubricReward, reward_function
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.environments.model_user import ModelUser
from stateset_agents.training.changes import evaluation_record
from stateset_agents.training.command import run_of
from stateset_agents.training.run import Run
from stateset_agents.training.saving import Subject
from stateset_agents.training.trained import Trained, open_trained
from stateset_agents.training.trust import foreign, is_own_model

TRAINING = [{"id": "seen", "user_responses": ["Hi.", "Bye."]}]
HELD_OUT = [{"id": "unseen", "user_responses": ["Hello."]}, {"id": "other", "user_responses": ["Good day."]}]
TASKS = [
    {
        "id": "refund",
        "goal": "get a refund",
        "description": "A kettle is broken.",
        "required_actions": [{"name": "offer", "keywords": ["refund"]}],
    }
]
CANARY = """\
from pathlib import Path
from stateset_agents.agents import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment

Path(__file__).with_name("imported").touch()


def look_up(order: str) -> str:
    "Find an order."
    return "shipped"


def judged(turns, context=None):
    return 1.0


class Mine(MultiTurnAgent):
    pass


class Shop(ConversationEnvironment):
    pass
"""


def agent() -> MultiTurnAgent:
    return MultiTurnAgent(AgentConfig(model_name="stub://echo", temperature=0.5, system_prompt="Be kind."))


def saved(folder: Path, run: Run, step: int = 7) -> Path:
    """The checkpoint that a finished run leaves."""
    records = {"run": run.settings, "evaluation": evaluation_record(run)}
    return written_checkpoint(folder, Subject(run.agent, run.environment, run.reward, records), step)


def written_checkpoint(folder: Path, subject: Subject, step: int) -> Path:
    """As `save_final` writes one without weights."""
    return write_checkpoint(folder / "saved", records=subject.to_records() | {PROGRESS: {"step": step}})


def of_objects(folder: Path, **parts: Any) -> Path:
    """A checkpoint of `train(agent, environment, ...)`."""
    default = {"agent": agent(), "environment": ConversationEnvironment(TRAINING), "reward": HelpfulnessReward()}
    return saved(folder, Run(config=TrainingConfig.from_profile("balanced"), **{**default, **parts}))


def of_config(folder: Path, **sections: Any) -> Path:
    """A checkpoint of `grpo-train`."""
    return saved(folder, run_of(load_config(written(folder, **sections))))


def written(folder: Path, name: str = "run.json", **sections: Any) -> Path:
    for file, scenarios in (("seen", TRAINING), ("unseen", HELD_OUT)):
        (folder / f"{file}.json").write_text(json.dumps(scenarios))
    (folder / "tasks.json").write_text(json.dumps(TASKS))
    config = {"agent": {"model_name": "stub://echo"}, "environment": {"scenarios_file": "seen.json"}, **sections}
    (folder / name).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder / name


def ids(trained: Trained) -> list[str]:
    return [scenario.id for scenario in trained.scenarios]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file behind when it is imported, from a folder that Python looks into."""
    (tmp_path / "canary_code.py").write_text(CANARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "imported"
    sys.modules.pop("canary_code", None)


def test_a_run_from_a_config_comes_back_without_its_files(tmp_path):
    path = of_config(
        tmp_path,
        agent={"model_name": "stub://echo", "temperature": 0.3},
        environment={"scenarios_file": "seen.json", "max_turns": 4, "persona": "Costs $${5}."},
        rewards=[{"type": "helpfulness", "weight": 0.4}, {"type": "length_penalty", "max_words": 9}],
        combination_method="average",
    )
    for file in tmp_path.glob("*.json"):
        file.unlink()
    trained = open_trained(path)
    assert (trained.step, trained.checkpoint) == (7, path)
    assert (type(trained.agent), trained.agent.config.temperature) == (MultiTurnAgent, 0.3)
    assert (trained.environment.max_turns, trained.environment.persona) == (4, "Costs ${5}.")
    assert isinstance(trained.reward, CompositeReward)
    assert trained.reward.combination_method == "average"
    assert [part.weight for part in trained.reward.rewards.values()] == [0.4, 1.0]
    assert trained.reward.rewards["length_penalty"].max_words == 9


def test_a_run_of_objects_comes_back_with_its_lone_reward_unweighted(tmp_path):
    trained = open_trained(of_objects(tmp_path, reward=HelpfulnessReward(weight=0.25)))
    assert (type(trained.reward), trained.reward.weight) == (HelpfulnessReward, 0.25)
    assert (type(trained.environment), ids(trained)) == (ConversationEnvironment, ["seen"])
    assert trained.agent.config.system_prompt == "Be kind."


@pytest.mark.parametrize("eval_every", [0, 50])
def test_what_the_run_held_out_is_played(tmp_path, eval_every):
    training = {"eval_scenarios_file": "unseen.json", "eval_every": eval_every}
    trained = open_trained(of_config(tmp_path, training=training))
    assert ids(trained) == ["unseen", "other"]
    assert trained.notes == ("scenarios: the 2 scenarios that the run held out of training",)


def test_without_held_out_scenarios_the_training_ones_are_played_and_that_is_said(tmp_path):
    trained = open_trained(of_objects(tmp_path))
    assert ids(trained) == ["seen"]
    assert "the 1 scenario that the agent was trained on" in trained.notes[0]


def test_a_file_of_scenarios_wins(tmp_path):
    path = of_config(tmp_path)
    trained = open_trained(path, scenarios_file=tmp_path / "unseen.json")
    assert ids(trained) == ["unseen", "other"]
    assert trained.notes == (f"scenarios: those of {tmp_path / 'unseen.json'}",)


@pytest.mark.parametrize("by_config", [True, False])
async def test_tasks_come_back_with_their_actions(tmp_path, by_config):
    if by_config:
        path = of_config(tmp_path, environment={"type": "task", "tasks_file": "tasks.json"})
    else:
        path = of_objects(tmp_path, environment=TaskEnvironment(TASKS))
    environment = open_trained(path).environment
    assert isinstance(environment, TaskEnvironment)
    state = await environment.reset()
    state, *_, done = await environment.step(state, "You get a refund.")
    assert (done, state.context["completed_actions"]) == (True, ["offer"])


def test_a_file_of_tasks_wins_where_the_run_had_tasks(tmp_path):
    path = of_objects(tmp_path, environment=TaskEnvironment(TASKS))
    (tmp_path / "new.json").write_text(json.dumps({"tasks": [{"id": "new", "goal": "x"}]}))
    assert ids(open_trained(path, scenarios_file=tmp_path / "new.json")) == ["new"]
    (tmp_path / "seen.json").write_text(json.dumps({"scenarios": TRAINING}))
    with pytest.raises(DataError, match=r"seen\.json has the unknown key 'scenarios'\. Known: tasks"):
        assert open_trained(path, scenarios_file=tmp_path / "seen.json").scenarios


def test_a_user_played_by_a_model_comes_back(tmp_path):
    user = ModelUser(LocalChat("tiny"), temperature=0.2, seed=3)
    trained = open_trained(of_objects(tmp_path, environment=ConversationEnvironment(TRAINING, user=user)))
    assert trained.environment.describe_user() == user.describe()


def test_tools_that_come_with_the_package_come_back_with_their_limits(tmp_path):
    section = {
        "type": "tool",
        "model_name": "stub://echo",
        "tools": [{"name": "calc", "function": "calculator_function"}],
        "tool_format": "json",
        "tool_limits": {"calls_per_turn": 2},
    }
    made = open_trained(of_config(tmp_path, agent=section)).agent
    assert isinstance(made, ToolAgent)
    assert ([tool.name for tool in made.tools], made.tool_format, made.limits.calls_per_turn) == (["calc"], "json", 2)


def test_a_run_that_played_nothing_needs_scenarios_of_somebody_else(tmp_path):
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "answers.jsonl").write_text(json.dumps({"messages": turns}))
    training = {"algorithm": "sft", "data_file": "answers.jsonl"}
    path = of_config(tmp_path, environment=None, training=training)
    assert open_trained(path).agent
    with pytest.raises(DataError, match="played no scenarios: name some with --scenarios-file"):
        assert open_trained(path).environment
    assert ids(open_trained(path, scenarios_file=tmp_path / "seen.json")) == ["seen"]


class Own(Environment):
    async def step(self, state, action):
        return state, None, 0.0, True


def judged(turns, context=None):
    return 1.0


def over(turns, context):
    return True


class OwnAgent(MultiTurnAgent):
    pass


PLAYED = {"type": "model", "model_name": "somebody/large"}
MIXED = {"type": "mixture", "users": [{"type": "scripted", "share": 0.5}, {**PLAYED, "share": 0.5}]}
RUBRIC = [{"predicate": over, "points": 1}]
TOOL = {"name": "find", "description": "Finds.", "function": "canary_code.look_up"}


@pytest.mark.parametrize(
    ("part", "make", "named"),
    [
        ("environment", lambda f: of_objects(f, environment=Own()), "the environment Own"),
        ("environment", lambda f: of_objects(f, environment=TaskEnvironment(TASKS, over)), "the criterion .*over"),
        (
            "environment",
            lambda f: of_objects(
                f,
                environment=TaskEnvironment([{"goal": "x", "required_actions": [{"name": "a", "check": over}]}]),
            ),
            "the check .*over of 'a'",
        ),
        (
            "environment",
            lambda f: of_objects(
                f,
                environment=ConversationEnvironment(
                    TRAINING, user=ModelUser(Endpoint("http://127.0.0.1:9/v1", "somebody", api_key_env=None))
                ),
            ),
            "the user somebody",
        ),
        (
            "environment",
            lambda f: of_config(f, environment={"type": "custom", "class": "canary_code.Shop", "scenarios": TRAINING}),
            "the environment canary_code.Shop",
        ),
        ("reward", lambda f: of_objects(f, reward=reward_function(judged)), "the reward .*judged"),
        (
            "reward",
            lambda f: of_objects(f, reward=CompositeReward([HelpfulnessReward(), CompositeReward([judged])])),
            "the reward .*judged",
        ),
        (
            "environment",
            lambda f: with_record(f, "run", {"environment": {"type": "conversation", "user": PLAYED}}),
            "the model somebody/large that plays the user",
        ),
        (
            "environment",
            lambda f: with_record(f, "run", {"environment": {"type": "conversation", "user": MIXED}}),
            "the model somebody/large that plays the user",
        ),
        (
            "reward",
            lambda f: with_record(f, "reward", {"config": {"type": "learned", "folder": "/srv/reward"}}),
            "the folder /srv/reward of a reward",
        ),
        (
            "reward",
            lambda f: with_record(f, "reward", {"config": {"type": "learned", "folder": "reward"}}),
            "the folder reward of a reward",
        ),
        (
            "reward",
            lambda f: with_record(
                f, "reward", {"config": {"functions": [{"type": "format", "schema_file": "/x.json"}]}}
            ),
            "the file /x.json of a reward",
        ),
        ("reward", lambda f: of_objects(f, reward=RubricReward(RUBRIC)), "predicate|made in code"),
        (
            "reward",
            lambda f: of_config(f, rewards=[{"type": "custom", "module": "canary_code.judged"}]),
            "the reward canary_code.judged",
        ),
        (
            "reward",
            lambda f: of_config(
                f, rewards=[{"type": "llm_judge", "base_url": "http://127.0.0.1:9/v1", "model": "judge"}]
            ),
            "the server http://127.0.0.1:9/v1",
        ),
        ("agent", lambda f: of_objects(f, agent=OwnAgent(AgentConfig(model_name="stub://echo"))), "class OwnAgent"),
        (
            "agent",
            lambda f: of_objects(f, agent=ToolAgent(AgentConfig(model_name="stub://echo"), [look])),
            "the tools look",
        ),
        (
            "agent",
            lambda f: of_config(f, agent={"type": "tool", "model_name": "stub://echo", "tools": [TOOL]}),
            "the tools find",
        ),
        (
            "agent",
            lambda f: of_config(f, agent={"type": "custom", "class": "canary_code.Mine", "model_name": "stub://echo"}),
            "the agent class Mine",
        ),
    ],
)
def test_code_and_servers_that_a_checkpoint_names_are_left_alone(tmp_path, canary, part, make, named):
    path = make(tmp_path)
    canary.unlink(missing_ok=True)
    sys.modules.pop("canary_code", None)
    trained = open_trained(path)
    with pytest.raises(ConfigError, match=f"names .*{named}") as raised:
        getattr(trained, part)
    assert f"open_trained('{path}', config_file='my_config.yaml')" in str(raised.value)
    assert not canary.exists()
    for other in {"agent", "environment", "reward"} - {part}:
        assert getattr(trained, other)


def look(order: str) -> str:
    """Find it."""
    return order


def test_the_error_repeats_the_command_with_the_option_that_is_missing(tmp_path, monkeypatch):
    path = of_objects(tmp_path, reward=reward_function(judged))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/grpo-evaluate", str(path), "--verbose"])
    with pytest.raises(ConfigError, match=f"grpo-evaluate {path} --verbose --config-file my_config.yaml"):
        assert open_trained(path).reward


def test_the_lines_of_the_error_open_an_agent_whose_tools_were_made_in_python(tmp_path):
    (tmp_path / "my_tools.py").write_text("def look(order: str) -> str:\n    return order\n")
    limits = ToolLimits(calls_per_turn=3)
    path = of_objects(tmp_path, agent=ToolAgent(AgentConfig("stub://echo"), [look], tool_format="json", limits=limits))
    with pytest.raises(ConfigError) as raised:
        assert open_trained(path).agent
    _, _, lines = str(raised.value).partition("these lines are enough:\n")
    assert "    - name: look\n        function: my_tools.look\n" in lines
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(lines))
    agent = open_trained(path, config_file=tmp_path / "mine.yaml").agent
    assert [tool.name for tool in agent.tools] == ["look"]
    assert (agent.limits, agent.config.model_name) == (limits, "stub://echo")
    sys.modules.pop("my_tools")


def test_the_error_names_the_file_that_the_run_was_started_from(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "my_rewards.py").write_text("def judged(turns, context=None):\n    return 0.5\n")
    config = load_config(written(tmp_path, rewards=[{"type": "custom", "module": "my_rewards.judged"}]))
    path = saved(folder, run_of(config))
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "status.json").write_text("{}")
    with pytest.raises(ConfigError) as raised:
        assert open_trained(path).reward
    assert f"open_trained('{path}', config_file='{tmp_path / 'run.json'}')" in str(raised.value)
    # the copy in the run's folder finds the code beside the first file
    assert "judged" in open_trained(path, config_file=folder / "config.yaml").reward.rewards
    sys.modules.pop("my_rewards")
    sys.path.remove(str(tmp_path))
    (tmp_path / "run.json").rename(folder / "run.json")
    (folder / "config.yaml").write_text(f'# Every value of a run that was started from "{folder / "run.json"}"\n')
    with pytest.raises(ConfigError, match=r"config_file='my_config\.yaml'"):
        assert open_trained(path).reward


def test_a_variable_that_a_checkpoint_names_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hush")
    path = of_config(tmp_path, environment={"scenarios_file": "seen.json", "persona": "${MY_SECRET_TOKEN}"})
    with pytest.raises(ConfigError, match="names a variable in"):
        assert open_trained(path).environment


def test_the_operators_config_names_the_code(tmp_path, canary):
    sections = {
        "agent": {"type": "tool", "model_name": "stub://echo", "tools": [TOOL], "temperature": 0.9},
        "environment": {"type": "custom", "class": "canary_code.Shop", "scenarios_file": "seen.json"},
        "rewards": [{"type": "custom", "module": "canary_code.judged"}],
    }
    path = of_config(tmp_path, **sections)
    config = written(tmp_path, "mine.json", **{**sections, "agent": {**sections["agent"], "temperature": 0.1}})
    trained = open_trained(path, config_file=config)
    assert [tool.name for tool in trained.agent.tools] == ["find"]
    assert trained.agent.config.temperature == 0.1
    assert type(trained.environment).__name__ == "Shop"
    assert trained.reward.rewards["judged"]
    assert trained.notes == (
        "agent, environment, rewards from mine.json, weights from the checkpoint",
        "scenarios: those of mine.json",
    )


def test_what_the_config_leaves_out_is_the_checkpoints(tmp_path):
    path = of_config(tmp_path, rewards=[{"type": "safety"}], training={"eval_scenarios_file": "unseen.json"})
    config = written(tmp_path, "mine.json", agent={"temperature": 0.1}, environment=None)
    trained = open_trained(path, config_file=config)
    assert (trained.agent.config.temperature, trained.agent.config.model_name) == (0.1, "stub://echo")
    assert list(trained.reward.rewards) == ["safety"]
    assert ids(trained) == ["unseen", "other"]
    assert trained.notes[0] == "agent from mine.json, weights from the checkpoint, and so environment, rewards"
    shorter = written(tmp_path, "short.json", agent=None, environment={"max_turns": 1})
    trained = open_trained(path, config_file=shorter)
    assert (trained.environment.max_turns, ids(trained)) == (1, ["unseen", "other"])


def test_a_config_that_states_a_key_leaves_the_kind_of_agent_and_environment_as_they_were(tmp_path):
    tools = [{"name": "calc", "function": "calculator_function"}]
    agent_section = {"type": "tool", "model_name": "stub://echo", "tools": tools, "max_new_tokens": 9}
    path = of_config(
        tmp_path,
        agent=agent_section,
        environment={"type": "task", "tasks_file": "tasks.json", "persona": "Anna", "max_turns": 7},
    )
    config = written(tmp_path, "mine.json", agent={"temperature": 0.1}, environment={"max_turns": 2})
    trained = open_trained(path, config_file=config)
    assert [tool.name for tool in trained.agent.tools] == ["calc"]
    assert (trained.agent.config.temperature, trained.agent.config.max_new_tokens) == (0.1, 9)
    assert isinstance(trained.environment, TaskEnvironment)
    assert (trained.environment.max_turns, trained.environment.persona, ids(trained)) == (2, "Anna", ["refund"])
    empty = written(tmp_path, "empty.json", agent={}, environment={})
    assert open_trained(path, config_file=empty).environment.max_turns == 7
    wrong = written(tmp_path, "wrong.json", environment={"scenarios_file": "seen.json"})
    with pytest.raises(
        ConfigError, match='scenarios_file is not for the environment of the run, which is of type "task"'
    ):
        assert open_trained(path, config_file=wrong).environment
    own = of_objects(tmp_path / "own", environment=Own(), agent=OwnAgent(AgentConfig(model_name="stub://echo")))
    for part in ("agent", "environment"):
        with pytest.raises(ConfigError, match="names the"):
            getattr(open_trained(own, config_file=config), part)


def test_a_config_that_names_scenarios_plays_its_held_out_ones(tmp_path):
    path = of_config(tmp_path)
    config = written(tmp_path, "mine.json", training={"eval_scenarios_file": "unseen.json"})
    assert ids(open_trained(path, config_file=config)) == ["unseen", "other"]
    config = written(
        tmp_path, "short.json", agent=None, environment=None, training={"eval_scenarios_file": "seen.json"}
    )
    assert ids(open_trained(path, config_file=config)) == ["seen"]
    assert open_trained(path, config_file=config).notes[1] == f"scenarios: those of {tmp_path / 'seen.json'}"


def test_calls_may_take_as_long_as_in_the_run_unless_the_config_says_otherwise(tmp_path):
    path = of_config(tmp_path, training={"environment_timeout": 5, "reward_timeout": None})
    assert open_trained(path).timeouts == (5.0, None)
    config = written(tmp_path, "mine.json", training={"reward_timeout": 7})
    assert open_trained(path, config_file=config).timeouts == (5.0, 7.0)


def test_a_device_is_named_by_the_call_or_the_environment(tmp_path, monkeypatch):
    path = of_objects(tmp_path)
    assert open_trained(path, device="cuda:1").agent.config.device == "cuda:1"
    monkeypatch.setenv("GRPO_USE_GPU", "false")
    assert open_trained(path).agent.config.device == "cpu"
    monkeypatch.setenv("GRPO_USE_GPU", "perhaps")
    with pytest.raises(ConfigError, match="GRPO_USE_GPU"):
        open_trained(path)


@pytest.mark.parametrize(
    ("stem", "content", "message"),
    [
        ("reward", {"config": {"type": "kindness"}}, "reward.json: .*kindness"),
        ("reward", {"config": None}, "reward.json is not understood"),
        ("reward", [], "reward.json is not understood"),
        ("environment", "conversation", "environment.json is not understood"),
        (
            "environment",
            {"class": "ConversationEnvironment", "max_turns": 0},
            "environment.max_turns is not understood",
        ),
    ],
)
def test_records_that_are_wrong_are_told_with_their_place(tmp_path, stem, content, message):
    run = Run(agent(), ConversationEnvironment(TRAINING), HelpfulnessReward(), TrainingConfig.from_profile("balanced"))
    subject = Subject(run.agent, run.environment, run.reward, {stem: content})
    path = written_checkpoint(tmp_path, subject, 1)
    with pytest.raises(CheckpointError, match=message):
        getattr(open_trained(path), stem)


def test_what_lies_in_the_checkpoint_is_its_own(tmp_path):
    path = of_objects(tmp_path)
    assert is_own_model(path, str(path / "user"))
    assert not is_own_model(path, str(path / ".." / "user"))
    (path / "link").symlink_to(tmp_path)
    assert not is_own_model(path, str(path / "link"))
    assert list(foreign({"type": "learned", "folder": str(path / "reward")}, path)) == []


def test_an_agent_that_was_saved_by_itself_is_talked_to_and_not_evaluated(tmp_path):
    record = read_checkpoint(of_objects(tmp_path / "whole")).record("agent")
    trained = open_trained(write_checkpoint(tmp_path / "agent", records={"agent": record}))
    assert (trained.agent.config.system_prompt, trained.greeting, trained.notes) == ("Be kind.", None, ())
    with pytest.raises(CheckpointError, match="environment"):
        assert trained.scenarios


def test_the_folder_that_a_run_began_from_is_loaded_where_the_operator_names_it_too(tmp_path):
    (tmp_path / "model").mkdir()
    name = str(tmp_path / "model")
    path = of_objects(tmp_path / "first")
    assert open_trained(path).may_load_untrained
    record = read_checkpoint(path).record("agent")
    path = with_record(tmp_path, "agent", {**record, "config": {**record["config"], "model_name": name}})
    assert not open_trained(path).may_load_untrained
    for model, may in ((name, True), ("tiny", False)):
        mine = written(tmp_path, "mine.json", agent={"model_name": model})
        assert open_trained(path, config_file=mine).may_load_untrained is may


def with_record(folder: Path, stem: str, value: Any) -> Path:
    """A whole checkpoint of which one record was written by somebody else."""
    # Without the section of a config, the environment's own record is read.
    opened = read_checkpoint(of_objects(folder) if stem == "environment" else of_config(folder))
    records = {name: opened.record(name) for name in opened.manifest.records}
    return write_checkpoint(folder / "changed", records=records | {stem: value})


def test_a_reward_that_is_recorded_as_a_list_imports_nothing(tmp_path, canary):
    path = with_record(tmp_path, "reward", {"config": [{"type": "custom", "module": "canary_code.judged"}]})
    with pytest.raises(CheckpointError, match=r"reward\.json is not understood: config is \[.*, no mapping"):
        _ = open_trained(path).reward
    assert not canary.exists()


@pytest.mark.parametrize(
    ("stem", "value"),
    [
        ("reward", {"config": {"functions": [{"type": ["helpfulness"]}]}}),
        ("reward", {"config": {"type": "rubric", "checks": None}}),
        ("reward", {"config": {"functions": None}}),
        ("reward", []),
        ("agent", []),
        ("run", []),
        ("run", {"training": []}),
        ("run", {"training": {"environment_timeout": "1"}}),
        ("run", {"environment": "conversation"}),
        ("environment", {"class": "ConversationEnvironment", "user": "scripted"}),
        ("environment", []),
        ("scenarios", {"scenarios": [["seen"]]}),
        ("scenarios", {}),
        ("evaluation", {"held_out": "unseen"}),
        ("progress", {"step": "7"}),
    ],
)
def test_a_record_of_another_shape_is_a_malformed_checkpoint(tmp_path, stem, value):
    path = with_record(tmp_path, stem, value)

    def read_all() -> None:
        trained = open_trained(path)
        _ = (trained.agent, trained.reward, trained.scenarios, trained.timeouts, trained.seen([]))

    with pytest.raises((CheckpointError, DataError)):
        read_all()


def test_the_greeting_is_that_of_the_config_else_of_the_run(tmp_path):
    path = of_config(tmp_path, agent={"model_name": "stub://echo", "greeting": "Welcome."})
    assert open_trained(path).greeting == "Welcome."
    mine = written(tmp_path, "mine.json", agent={"model_name": "stub://echo", "greeting": "Hello from me."})
    assert open_trained(path, config_file=mine).greeting == "Hello from me."
    other = written(tmp_path, "other.json", agent={"model_name": "stub://echo", "temperature": 0.2})
    assert open_trained(path, config_file=other).greeting == "Welcome."
    assert open_trained(of_objects(tmp_path / "objects")).greeting is None


def test_code_that_a_file_of_tasks_names_is_looked_for_beside_it_and_not_in_the_checkpoint(tmp_path, monkeypatch):
    path = of_config(tmp_path, environment={"type": "task", "tasks_file": "tasks.json"})
    with_code(path, "shop_checks.py", "raise AssertionError('of the checkpoint')")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "shop_checks.py").write_text("def done(turns, context):\n    return True\n")
    action = {"name": "done", "check": "shop_checks.done"}
    (mine / "tasks.json").write_text(json.dumps([{"id": "own", "goal": "any", "required_actions": [action]}]))
    monkeypatch.chdir(path)
    assert ids(open_trained(path, scenarios_file=mine / "tasks.json")) == ["own"]
    sys.modules.pop("shop_checks")


def with_code(path: Path, name: str, code: str) -> None:
    """Put a module into a checkpoint, as part of it."""
    (path / name).write_text(code)
    manifest = Manifest.read(path)
    manifest.files[name] = FileEntry(len(code), hash_file(path / name))
    manifest.write(path)
