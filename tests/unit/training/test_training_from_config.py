"""From a config to agent, environments and reward: nothing lost, and every failure placed in the config."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stateset_agents.agents import ToolAgent
from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config import RunConfig, load_config
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.environment.task import TaskEnvironment
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.training.from_config import (
    build_agent,
    build_environment,
    build_eval_environment,
    build_reward,
    with_weights,
)

MODULE = """
from stateset_agents.agents.base import Agent
from stateset_agents.agents.config import AgentConfig
from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment, Environment
from stateset_agents.core.reward import reward_function


class ByConfig(MultiTurnAgent):
    pass


class ByName(MultiTurnAgent):
    def __init__(self, model_name):
        super().__init__(AgentConfig(model_name=model_name, system_prompt="mine", temperature=0.3))


class Modelless(Agent):
    async def process_turn(self, history, user_input, context=None):
        raise NotImplementedError


class Broken(MultiTurnAgent):
    def __init__(self, config):
        raise KeyError("oops")


class Forgetful(MultiTurnAgent):
    def __init__(self, model_name):
        self.name = model_name


class World(Environment):
    def __init__(self):
        self.made = True

    async def step(self, state, action):
        return state, None, 0.0, True


class Talk(ConversationEnvironment):
    pass


def stranger():
    pass


def look_up(word: str):
    'Finds a word.'


NUMBER = 3


@reward_function(weight=0.25)
def short(turns):
    return 7.0


async def polite(turns, context=None):
    return 1.0
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], RunConfig]:
    """Loads a config from a folder with scenarios and a module of the user's own."""
    fact = {"id": "price", "user_responses": ["How much?"], "facts": {"price": "$49"}}
    (tmp_path / "plain.json").write_text(
        json.dumps([{"id": "refund", "user_responses": ["I want a refund.", "Thanks."]}])
    )
    (tmp_path / "facts.json").write_text(json.dumps([fact]))
    module = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(MODULE)

    def load(text: str) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_text(text.replace("mine.", f"{module}."))
        return load_config(path, environ={})

    return load


def test_an_agent_with_tools_has_those_that_the_config_names(build):
    agent = build_agent(
        build(
            "agent:\n  type: tool\n  model_name: tiny\n  tool_format: json\n  tools:\n"
            "    - {name: sums, description: Sums up, function: calculator_function}\n"
            "    - {name: look, function: mine.look_up, sequential: true}\n"
            "  tool_limits: {calls_per_turn: 2, seconds_per_call: 1.5}\n"
            "environment: {scenarios_file: plain.json}\n"
        )
    )
    assert isinstance(agent, ToolAgent)
    assert [(tool.name, tool.description, tool.sequential) for tool in agent.tools] == [
        ("sums", "Sums up", False),
        ("look", "Finds a word.", True),
    ]
    assert agent.tools[0].function(expression="2*3") == "6"
    assert (agent.limits.calls_per_turn, agent.limits.seconds_per_call) == (2, 1.5)
    assert agent.limits.bytes_per_result == 4096
    assert agent.tool_format == "json"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("calculator", "no built-in tool of that name"),
        ("mine.lookup", 'did you mean "look_up"'),
        ("mine.NUMBER", "it must be a function"),
        ("os.system", "does whatever a model writes"),
        ("builtins.eval", "does whatever a model writes"),
        ("runpy.run_path", "does whatever a model writes"),
    ],
)
def test_a_tool_that_is_none_is_told_with_its_line(build, function, told):
    text = f"agent:\n  type: tool\n  tools:\n    - {{name: t, function: {function}}}\n"
    with pytest.raises(ConfigError, match=told) as caught:
        build_agent(build(text + "environment: {scenarios_file: plain.json}\n"))
    assert "run.yaml, line 3: agent.tools[0]" in str(caught.value)


def test_two_tools_of_one_name_are_told_with_the_line_of_the_second(build):
    text = "agent:\n  type: tool\n  tools:\n" + "    - {name: t, function: mine.look_up}\n" * 2
    with pytest.raises(ConfigError, match=r"line 3: agent\.tools\[1\] is called 't', and so is another tool"):
        build_agent(build(text + "environment: {scenarios_file: plain.json}\n"))


def test_an_agent_has_every_setting_of_the_config(build):
    text = "agent: {model_name: tiny, system_prompt: Hi, temperature: 0.5, max_new_tokens: 7, top_p: 0.9, top_k: 3,\n"
    text += "  repetition_penalty: 1.2, memory_window: 4, dtype: float32, device: cpu}\n"
    agent = build_agent(build(text + "environment: {scenarios_file: plain.json}\n"))
    assert isinstance(agent, MultiTurnAgent)
    config = agent.config
    assert (config.model_name, config.system_prompt, config.temperature, config.max_new_tokens) == (
        "tiny",
        "Hi",
        0.5,
        7,
    )
    assert (config.top_p, config.top_k, config.repetition_penalty) == (0.9, 3, 1.2)
    assert (config.memory_window, config.dtype, config.device) == (4, "float32", "cpu")


def test_a_class_made_from_a_config_gets_the_whole_config(build):
    agent = build_agent(
        build("agent: {type: custom, class: mine.ByConfig, model_name: tiny, temperature: 0.9}\n" + ENVIRONMENT)
    )
    assert type(agent).__name__ == "ByConfig"
    assert (agent.config.model_name, agent.config.temperature) == ("tiny", 0.9)


def test_a_class_made_from_a_name_keeps_what_the_config_does_not_state(build):
    agent = build_agent(
        build("agent: {type: custom, class: mine.ByName, model_name: tiny, temperature: 0.9}\n" + ENVIRONMENT)
    )
    assert (agent.config.model_name, agent.config.system_prompt, agent.config.temperature) == ("tiny", "mine", 0.9)


def test_an_agent_without_a_model_is_made_without_arguments(build):
    agent = build_agent(build("agent: {type: custom, class: mine.Modelless}\n" + ENVIRONMENT))
    assert type(agent).__name__ == "Modelless"


ENVIRONMENT = "environment: {scenarios_file: plain.json}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agent: {type: custom, class: mine.Nothing}\n" + ENVIRONMENT, 'has no "Nothing"'),
        ("agent: {type: custom, class: no_such_module_here.Thing}\n" + ENVIRONMENT, "there is no module"),
        ("agent: {type: custom, class: mine.stranger}\n" + ENVIRONMENT, "no Agent class"),
        ("agent: {type: custom, class: mine.World}\n" + ENVIRONMENT, "no Agent class"),
        ("agent: {type: custom, class: os.system}\n" + ENVIRONMENT, "of Python's own library"),
        ("agent: {type: custom, class: mine.Broken}\n" + ENVIRONMENT, "raised KeyError: 'oops' (mine"),
        ("agent: {type: custom, class: mine.Forgetful}\n" + ENVIRONMENT, "does not call super().__init__(config)"),
    ],
)
def test_an_agent_that_cannot_be_made_is_placed_in_the_config(build, text, words):
    with pytest.raises(ConfigError) as caught:
        build_agent(build(text))
    (problem,) = caught.value.problems
    assert problem.startswith("config error in run.yaml, line 1: agent.class")
    assert words in problem


def test_a_conversation_has_the_scenarios_and_length_of_the_config(build):
    environment = build_environment(build("environment: {scenarios_file: plain.json, max_turns: 3, persona: Ann}\n"))
    assert isinstance(environment, ConversationEnvironment)
    assert [scenario.id for scenario in environment.scenarios] == ["refund"]
    assert (environment.max_turns, environment.persona) == (3, "Ann")


TASKS = [{"goal": "Sell", "required_actions": [{"name": "price", "keywords": ["cost"]}]}]


def test_an_environment_of_tasks_has_those_of_the_file_and_the_criterion_that_is_named(build, tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": TASKS}))
    (tmp_path / "held.json").write_text(json.dumps({"tasks": [{**TASKS[0], "id": "held"}]}))
    text = "environment: {type: task, tasks_file: tasks.json, success_criteria: mine.polite, max_turns: 3}\n"
    config = build(text + "training: {eval_scenarios_file: held.json}\n")
    environment = build_environment(config)
    assert isinstance(environment, TaskEnvironment)
    assert [scenario.id for scenario in environment.episode_scenarios()] == ["task-0"]
    assert (environment.criterion.__name__, environment.max_turns) == ("polite", 3)
    held_out = build_eval_environment(config)
    assert isinstance(held_out, TaskEnvironment)
    assert [scenario.id for scenario in held_out.episode_scenarios()] == ["held"]
    with pytest.raises(ConfigError, match=r"run\.yaml, line 1: success_criteria is 'polite'"):
        build_environment(build(text.replace("mine.polite", "polite")))
    checked = [{"goal": "Sell", "required_actions": [{"name": "price", "check": "mine.nothing"}]}]
    (tmp_path / "tasks.json").write_text(json.dumps(checked))
    split = "environment:\n  type: task\n  tasks_file: tasks.json\n  success_criteria: mine.polite\n"
    with pytest.raises(ConfigError, match=r"run\.yaml, line 3: the check of 'price' is \"mine\.nothing\""):
        build_environment(build(split))


def test_evaluation_uses_the_held_out_scenarios_in_the_same_environment(build):
    text = "environment: {scenarios_file: plain.json, max_turns: 3}\ntraining: {eval_scenarios_file: facts.json}\n"
    environment = build_eval_environment(build(text))
    assert environment is not None
    assert [scenario["id"] for scenario in environment.scenarios] == ["price"]
    assert environment.max_turns == 3
    assert build_eval_environment(build(ENVIRONMENT)) is None


def test_inline_scenarios_are_checked_and_placed(build):
    config = build("environment:\n  scenarios:\n    - {user_responses: [Hi], topik: x}\n")
    with pytest.raises(DataError, match=r"data error in run.yaml, line 2: environment.scenarios\[0\] .*topik"):
        build_environment(config)


def test_a_custom_environment_that_takes_nothing_still_gets_scenarios_and_length(build):
    config = build("environment: {type: custom, class: mine.World, scenarios_file: plain.json, max_turns: 2}\n")
    environment = build_environment(config)
    assert type(environment).__name__ == "World"
    assert environment.made
    assert environment.max_turns == 2
    assert [scenario.id for scenario in environment.episode_scenarios()] == ["refund"]


def test_a_custom_environment_keeps_its_own_length_if_the_config_states_none(build):
    assert "max_turns" not in vars(build_environment(build("environment: {type: custom, class: mine.World}\n")))


def test_a_custom_environment_gets_what_it_takes(build):
    text = "environment: {type: custom, class: mine.Talk, scenarios_file: plain.json, persona: Ann}\n"
    assert build_environment(build(text)).persona == "Ann"


def test_a_persona_that_a_custom_environment_cannot_take_is_refused(build):
    with pytest.raises(ConfigError, match=r"run.yaml, line 1: environment.persona is set, but World takes no persona"):
        build_environment(build("environment: {type: custom, class: mine.World, persona: Ann}\n"))


def test_an_environment_class_that_is_none_is_refused(build):
    with pytest.raises(ConfigError, match=r"run.yaml, line 1: environment.class .* no Environment class"):
        build_environment(build("environment: {type: custom, class: mine.ByConfig}\n"))


def test_a_reward_has_the_weights_names_and_combination_of_the_config(build):
    text = ENVIRONMENT + "rewards:\n  - {type: conciseness, weight: 0.4, optimal_length: 30}\n"
    text += "  - {type: custom, module: mine.polite, weight: 2, name: manners}\ncombination_method: min\n"
    reward = build_reward(build(text))
    assert reward.combination_method == "min"
    assert {name: part.weight for name, part in reward.rewards.items()} == {"conciseness": 0.4, "manners": 2.0}
    assert reward.rewards["conciseness"].optimal_length == 30


def test_without_rewards_the_default_one_is_made(build):
    assert build_reward(build(ENVIRONMENT)).name == "default"


@pytest.mark.parametrize(
    ("module", "words"),
    [("mine.nothing", 'has no "nothing"'), ("mine.World", "World"), ("no_such_module_here.x", "there is no module")],
)
def test_a_custom_reward_that_is_none_is_placed_in_the_config(build, module, words):
    text = ENVIRONMENT + f"rewards:\n  - type: safety\n  - type: custom\n    module: {module}\n"
    with pytest.raises(ConfigError) as caught:
        build_reward(build(text))
    (problem,) = caught.value.problems
    assert problem.startswith("config error in run.yaml, line 4: rewards[1]")
    assert words in problem


def test_correctness_without_anything_to_judge_by_is_a_config_error(build):
    config = build(ENVIRONMENT + "rewards:\n  - type: correctness\n")
    with pytest.raises(ConfigError, match=r"config error in run.yaml, line 2: .*nothing to judge by"):
        build_reward(config, build_environment(config))


def test_correctness_with_facts_is_fine(build):
    config = build("environment: {scenarios_file: facts.json}\nrewards:\n  - type: correctness\n")
    build_reward(config, build_environment(config))


def test_a_weight_that_the_config_leaves_out_is_the_rewards_own_and_is_written_down(build):
    config = build(ENVIRONMENT + "rewards:\n  - type: safety\n  - {type: custom, module: mine.short}\n")
    reward = build_reward(config)
    assert {name: part.weight for name, part in reward.rewards.items()} == {"safety": 1.0, "short": 0.25}
    written = yaml.safe_load(with_weights(config, reward).to_yaml())["rewards"]
    assert [entry["weight"] for entry in written] == [1.0, 0.25]


def test_a_weight_in_the_config_wins_over_the_rewards_own(build):
    config = build(ENVIRONMENT + "rewards:\n  - {type: custom, module: mine.short, weight: 3}\n")
    assert [part.weight for part in build_reward(config).rewards.values()] == [3.0]
