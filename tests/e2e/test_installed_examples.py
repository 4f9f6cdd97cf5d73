"""The examples run as their documentation says: by name, from an installed wheel, in an empty folder."""

import pytest

from installed import run

NAMES = [
    "custom_environment",
    "custom_reward",
    "customer_service_agent",
    "llm_judge",
    "llm_user",
    "quick_start",
    "task_agent",
    "tool_agent",
    "tutoring_agent",
]
MODULES = [
    *(f"stateset_agents.examples.{name}" for name in NAMES),
    *(f"grpo_agent_framework.examples.{name}" for name in ("quick_start", "customer_service_agent")),
]


@pytest.mark.parametrize("module", MODULES)
def test_an_example_runs_from_the_wheel_in_an_empty_folder_and_leaves_it_empty(python, tmp_path, module):
    """Mutation: a file that an example reads is not in the wheel."""
    arguments = ["--model", "tiny", "--episodes", "16", "--samples", "1"]
    ended = run(python, "-m", module, *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    assert ended.stdout.splitlines()[-1].endswith(" seconds")
    assert list(tmp_path.iterdir()) == []


def test_the_documented_names_come_from_the_wheel(python, tmp_path):
    code = """
import stateset_agents
from grpo_agent_framework.examples import CustomerServiceAgent as Alias
from stateset_agents.examples import CustomerServiceAgent, CustomerServiceEnvironment, create_customer_service_reward
assert Alias is CustomerServiceAgent
tasks = CustomerServiceEnvironment().episode_scenarios()
print(len(tasks), create_customer_service_reward().attainable, CustomerServiceAgent("tiny").shop.find_order("A26"))
print(stateset_agents.__file__)
"""
    ended = run(python, "-W", "error", "-c", code, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told, place = ended.stdout.splitlines()
    assert told == "36 1.0 black mirror, $75, shipped, arrives Monday"
    assert place.startswith(str(python.parents[1]))
