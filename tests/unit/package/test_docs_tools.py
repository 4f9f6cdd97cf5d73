"""What docs/tools.md and docs/tasks.md show is what there is, and runs."""

import json
import re
import runpy
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from stateset_agents.agents import AgentConfig, ToolAgent, ToolLimits
from stateset_agents.config import load_config
from stateset_agents.core.environment import load_tasks
from stateset_agents.core.environment.actions import KEYS
from stateset_agents.core.messages import message_problems
from stateset_agents.core.tool_calls import ToolError
from stateset_agents.rollouts import play_episode
from stateset_agents.training.from_config import build_agent, build_environment, build_reward

DOCS = Path(__file__).parents[3] / "docs"
TOOLS, TASKS = ((DOCS / name).read_text(encoding="utf-8") for name in ("tools.md", "tasks.md"))
MY_TASKS = "def promised_nothing(turns, context):\n    return True\n"
MY_TOOLS = 'def find_order(order: str):\n    """Where it is."""\n    return order\n'


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_tasks.py").write_text(MY_TASKS, encoding="utf-8")
    (tmp_path / "my_tools.py").write_text(MY_TOOLS, encoding="utf-8")
    search = list(sys.path)
    yield tmp_path
    sys.path[:] = search
    for name in ("my_tasks", "my_tools"):
        sys.modules.pop(name, None)


def run(tmp_path, program):
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    return runpy.run_path(str(tmp_path / "program.py"))


def test_the_mask_is_what_the_program_prints(tmp_path, capsys):
    """Mutation: a result that is trained, or a header that is."""
    (program,) = [block for block in blocks(TOOLS, "python") if "groupby" in block]
    run(tmp_path, program)
    printed = capsys.readouterr().out
    assert f"```\n{printed}```" in TOOLS
    assert [line.split()[0] for line in printed.splitlines() if "mask 1" in line] == ["assistant"] * 3


async def test_the_other_programs_run(tmp_path):
    described, offered = (block for block in blocks(TOOLS, "python") if "groupby" not in block)
    agent = run(tmp_path, described)["agent"]
    assert agent.limits == ToolLimits(3, 5.0, 2000)
    assert agent.tools[0].parameters["properties"]["order"]["description"] == "as on the bill, for example A26."
    till = run(tmp_path, offered)["Till"]([{"user_responses": ["I pay twice.", "Thanks."]}])
    call = '{"name": "pay", "arguments": {"amount": 2}}'
    payer = ToolAgent(AgentConfig("stub://" + "|".join(map(quote, (call, call, "Done.")))))
    episode = await play_episode(payer, till, till.episode_scenarios()[0], None, key="k")
    assert [turn.content for turn in episode.turns if turn.role == "tool"][:2] == ["2.0 in the till", "4.0 in the till"]
    (tasks,) = blocks(TASKS, "python")
    (task,) = run(tmp_path, tasks)["environment"].episode_scenarios()
    assert [set(action) - {"name"} for action in task.extra["required_actions"]] == [
        {"tool", "arguments"},
        {"keywords"},
        {"check"},
    ]


def test_the_configs_build(folder):
    file, environment = blocks(TASKS, "yaml")
    (folder / "tasks.yaml").write_text(file, encoding="utf-8")
    (task,) = load_tasks(folder / "tasks.yaml")
    assert task.id == "refund"
    agent, after = blocks(TOOLS, "yaml")
    (folder / "run.yaml").write_text(agent + environment, encoding="utf-8")
    config = load_config(folder / "run.yaml")
    assert [tool.name for tool in build_agent(config).tools] == ["calculator", "find_order"]
    played = build_environment(config)
    assert played.criterion([], {}) is True
    build_reward(config, played)
    (folder / "after.yaml").write_text(after, encoding="utf-8")
    agent = build_agent(load_config(folder / "after.yaml", needs_scenarios=False))
    assert [tool.name for tool in agent.tools] == ["find_order"]


def test_the_recorded_conversation_is_one():
    (record,) = (json.loads(text) for text in blocks(TOOLS, "json"))
    assert not list(message_problems("here", "messages", record["messages"], last="assistant", tools=True))


def test_every_error_and_every_key_of_an_action_has_a_row():
    rows = re.findall(r"^\| `(\w+)`", TOOLS, re.MULTILINE)
    assert {error.value for error in ToolError} <= set(rows)
    keys = re.findall(r"`(\w+)`", "".join(line for line in TASKS.splitlines() if line.startswith("| `")))
    assert set(KEYS) <= {*keys, "name"}
