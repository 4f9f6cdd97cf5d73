"""Every program of the user guide runs from an installed wheel, in an empty folder, as a reader finds it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from installed import run

ROOT = Path(__file__).parents[2]


def programs_of(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL)


BLOCKS = programs_of(ROOT / "docs" / "usage-guide.md")
OTHER_BLOCKS = programs_of(Path(__file__).parent / "documents.md")

WORDS = [
    "MultiTurnAgent.from_model(",
    "async def quick_example():",
    "memory_window=10",
    "class CustomAgent(MultiTurnAgent):",
    "return eval(expression)  # Note: unsafe for production",
    "ToolAgent(config, tools=[calculator])",
    'persona="You are a user seeking technical support."',
    "env = TaskEnvironment(",
    "class CustomEnvironment(Environment):",
    "composite = CompositeReward([",
    "class CustomReward(RewardFunction):",
    "@reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE)",
    'await train(agent, environment, profile="conservative")',
    "config_overrides = {",
    "auto_trainer = AutoTrainer(",
    "monitor = DiagnosticsMonitor()",
    "load_agent_from_checkpoint(",
    'agent = CustomerServiceAgent("openai/gpt-oss-120b")',
]
"""A line of each program, in order."""

USE = """
import asyncio
from urllib.parse import quote

from stateset_agents.rollouts import play_episode

def scripted(*replies):
    return AgentConfig("stub://" + "|".join(quote(reply) for reply in replies))

async def played(agent, environment):
    return await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")
"""
"""What the programs below share: agents that say what they are told to."""

USE_OF_THE_GUIDE = """
class Environment3(CustomEnvironment):
    max_turns = 2

await train(CustomAgent(MODEL), Environment3(), reward_fn=[CustomReward(), creativity_reward, composite], quiet=True)
await train(CustomAgent(MODEL), environment, reward_fn=CustomReward, quiet=True)
await train(tool_agent, TaskEnvironment(tasks, success_criteria, max_turns=2), reward_fn=composite, quiet=True)

CALL = '{"name": "calculator", "arguments": {"expression": "2 ** 10"}}'
results = []
for given in (tools, [calculator]):
    for call in (CALL, CALL.replace("2 ** 10", "help me"), CALL.replace("expression", "sum")):
        turn = await ToolAgent(scripted(call, "Done."), tools=given).process_turn([], "What is 2 to the 10?")
        results.append(turn.steps[1].content)

planner = MultiTurnAgent(scripted("Where to, at what cost?", "What would you like to do?", "And when?"))
vacation = TaskEnvironment(tasks, success_criteria, max_turns=15)
planned = await played(planner, vacation)
forgetful = await played(MultiTurnAgent(scripted("Where to?")), vacation)

told = {
    "health": str(health.status),
    "loaded": type(loaded_agent).__name__,
    "results": results,
    "planned": [planned.success, planned.length],
    "forgotten": [forgetful.success, forgetful.length],
}
"""

GIVEN_TO_THE_OTHERS = """
from stateset_agents import (
    Agent, AgentConfig, CompositeReward, ConversationEnvironment, ConversationTurn, CorrectnessReward,
    EngagementReward, Environment, HelpfulnessReward, MultiTurnAgent, RewardFunction, RewardResult, SafetyReward,
    ToolAgent, reward_function, train
)
from stateset_agents.core.environment import TaskEnvironment
from stateset_agents.examples import CustomerServiceEnvironment, create_customer_service_reward
from stateset_agents.training.diagnostics import DiagnosticsMonitor
from stateset_agents.training.train import AutoTrainer

config = AgentConfig(MODEL, max_new_tokens=8)
agent = MultiTurnAgent(config)
environment = ConversationEnvironment([{"user_responses": ["Hi!"]}])
score, breakdown = 0.5, {"tone": 0.5}

class CustomReward(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(0.25)

def calculate(expression):
    return "4"

def web_search(query):
    return f"nothing about {query}"

async def schedule_meeting(day, hour=9):
    return f"{day}, {hour}:00"

def calculate_business_value(turns, context):
    return 0.75
"""
"""What the framework overview leaves to its reader."""

USE_OF_THE_OTHERS = """
class Simulator:
    def process(self, state, action):
        return state, action

class Domain(SpecializedAgent):
    def enhance_with_knowledge(self, context):
        return {**(context or {}), "knowledge": self.knowledge}

class Simulated(SimulatedEnvironment):
    def convert_to_trajectory(self, result):
        state, action = result
        after = state.copy()
        after.turn_count += 1
        return after, ConversationTurn("user", f"You said {len(action.content)} letters."), 0.1, after.turn_count >= 2

rewards = [composite_reward.rewards[name] for name in ("helpfulness", "safety")]
mine = [politeness_reward, business_metric_reward, DomainReward(weight=0.1), CustomReward(weight=0.3)]
talk = ConversationEnvironment([{"user_responses": ["Hi!"]}])
await train(MyAgent(config), talk, reward_fn=[*rewards, *mine], quiet=True)
await train(Domain({"field": "law"}), Simulated(Simulator()), reward_fn=business_metric_reward, quiet=True)

calls = [
    '{"name": "calculator", "arguments": {"expression": "2 + 2"}}',
    '{"name": "search", "arguments": {"query": "tea"}}',
    '{"name": "calendar", "arguments": {"day": "Monday"}}',
]
turn = await ToolAgent(scripted("\\n".join(calls), "Done."), tools=tools).process_turn([], "Plan my day.")

told = {
    "health": str(health.status),
    "results": [step.content for step in turn.steps[1:]],
    "described": [tool.description for tool in tool_agent.tools],
}
"""


def test_the_guide_has_the_documented_programs():
    assert len(BLOCKS) == len(WORDS)
    for block, words in zip(BLOCKS, WORDS, strict=True):
        assert words in block


def run_blocks(python: Path, folder: Path, blocks: list[str], model: str, longest: int) -> tuple[dict, str, str]:
    empty = folder / "empty"
    empty.mkdir()
    (folder / "blocks.json").write_text(json.dumps([block.replace("MODEL", repr(model)) for block in blocks]))
    script = str(Path(__file__).parent / "run_blocks.py")
    ended = run(python, script, str(folder / "blocks.json"), model, str(longest), cwd=empty)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    (line,) = re.findall(r"^RESULT (.*)$", ended.stdout, flags=re.MULTILINE)
    result = json.loads(line)
    assert Path(result["package"]).is_relative_to(python.parents[1])
    return result, ended.stdout, ended.stderr


def run_guide(python: Path, folder: Path, model: str, longest: int) -> dict:
    result, out, err = run_blocks(python, folder, [*BLOCKS, USE, USE_OF_THE_GUIDE], model, longest)
    assert out.count("\nAgent: ") == 2
    assert out.count("GRPO Agent Framework - Training Complete\n") == 10
    assert out.count("- chosen: profile ") == 1
    assert "no reward was given: using the default" in err
    assert "Agent saved to: ./checkpoints/my_agent\n" in out
    assert [file.name for file in (folder / "empty").iterdir()] == ["checkpoints"]
    return result


EXPECTED = [
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "conservative", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "aggressive", 32],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 32],
    ["MultiTurnAgent", "ConversationEnvironment", "conservative", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
    ["CustomerServiceAgent", "CustomerServiceEnvironment", "balanced", 16],
    ["CustomAgent", "Environment3", "balanced", 16],
    ["CustomAgent", "ConversationEnvironment", "balanced", 16],
    ["ToolAgent", "TaskEnvironment", "balanced", 16],
]


def test_every_program_of_the_guide_runs_from_the_wheel_with_a_tiny_model(python, tmp_path):
    result = run_guide(python, tmp_path, "tiny", 16)
    assert result["trained"] == EXPECTED
    told = result["told"]
    assert told["health"] in ("HEALTHY", "WARNING")
    assert told["loaded"] == "MultiTurnAgent"
    assert told["planned"] == [True, 3]  # the task is done with the third question
    assert told["forgotten"] == [False, 15]
    unsafe, careful = told["results"][:3], told["results"][3:]
    assert unsafe[:2] == ["1024", "Error in calculation"]
    assert careful[0] == "1024"
    assert json.loads(careful[1])["error"] == "tool_failed"
    assert all(json.loads(answer)["error"] == "bad_arguments" for answer in (unsafe[2], careful[2]))


def test_the_documents_other_programs_run_from_the_wheel(python, tmp_path):
    blocks = [GIVEN_TO_THE_OTHERS, *OTHER_BLOCKS, USE, USE_OF_THE_OTHERS]
    result, _, _ = run_blocks(python, tmp_path, blocks, "tiny", 8)
    assert result["trained"] == [
        ["MultiTurnAgent", "ConversationEnvironment", "balanced", 16],
        ["CustomerServiceAgent", "CustomerServiceEnvironment", "balanced", 16],
        ["MyAgent", "ConversationEnvironment", "balanced", 16],
        ["Domain", "Simulated", "balanced", 16],
    ]
    assert result["told"] == {
        "health": "UNKNOWN",
        "results": ["4", "nothing about tea", "Monday, 9:00"],
        "described": ["", "", ""],
    }


def test_the_installed_command_trains_a_config_that_comes_with_it(python, tmp_path):
    arguments = ["configs/my_agent.yaml", "--model-name", "tiny", "--num-episodes", "16"]
    ended = run(python, "-m", "stateset_agents.cli.train", *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "GRPO Agent Framework - Training Complete" in ended.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["outputs"]


TRL_GUIDE = (Path(__file__).parent / "trl-training-guide.md").read_text()
TRL_BLOCKS = re.findall(r"^```python\n(.*?)^```", TRL_GUIDE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is bridged to")
@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2-135m-instruct", marks=pytest.mark.slow)])
def test_every_program_of_the_trl_guide_runs_from_the_wheel(python, tmp_path, model):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "blocks.json").write_text(json.dumps(TRL_BLOCKS))
    script = str(Path(__file__).parent / "run_trl_blocks.py")
    ended = run(python, script, str(tmp_path / "blocks.json"), model, cwd=empty)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    (line,) = re.findall(r"^RESULT (.*)$", ended.stdout, flags=re.MULTILINE)
    result = json.loads(line)
    assert Path(result["package"]).is_relative_to(python.parents[1])
    assert len(result["configs"]) == 8
    assert result["configs"][-1] == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert result["response"].startswith("User: Where is my order?\nAssistant:")
    for saved in ("final_model", "my_agent/final_model", "custom_training/final_model"):
        assert (empty / "outputs" / saved / "model.safetensors").is_file()
    assert len(list(empty.glob("outputs/**/training_*.log"))) == 3
    assert ended.stdout.count("GRPO Agent Framework - Training Complete\n") == 3


@pytest.mark.slow
def test_every_program_of_the_guide_runs_from_the_wheel_with_a_real_model(python, tmp_path):
    result = run_guide(python, tmp_path, "smollm2-135m-instruct", 24)
    assert result["trained"] == EXPECTED
