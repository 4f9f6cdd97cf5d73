"""The web shop and the agent that works in it."""

import copy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from stateset_agents.agents import AgentRuntime
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import load_tasks
from stateset_agents.core.records import read_records
from stateset_agents.core.shipped import shipped
from stateset_agents.engines.stub import StubEngine
from stateset_agents.evaluation import evaluate
from stateset_agents.examples.customer_service_agent import (
    DEMONSTRATIONS,
    HELD_OUT,
    TASKS,
    CustomerServiceAgent,
    CustomerServiceEnvironment,
    create_customer_service_reward,
)
from stateset_agents.examples.shop import Shop
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

ROOT = Path(__file__).parents[3]
TASK = {
    "id": "t",
    "goal": "Know and get the money back",
    "required_actions": [
        {"name": "find_order A26", "tool": "find_order", "arguments": {"order": "A26"}},
        {"name": "refund_order G83", "tool": "refund_order", "arguments": {"order": "G83"}},
    ],
    "facts": {"arrival": "Monday", "refund": ["$45 back", "refunded $45"]},
    "success_criteria": {"information_provided": ["arrival", "refund"]},
    "user_responses": ["When will order A26 arrive?", "I want to return order G83."],
}


def call(tool, order):
    return f'{{"name": "{tool}", "arguments": {{"order": "{order}"}}}}'


async def played(*replies):
    agent = CustomerServiceAgent("stub://")
    agent.config.max_new_tokens = 200  # the tiny tokenizer has short tokens
    tokenizer = load_tokenizer("tiny")
    codec = ChatCodec(tokenizer)
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, replies))
    environment = CustomerServiceEnvironment([TASK])
    (task,) = environment.episode_scenarios()
    reward = create_customer_service_reward()
    return agent, await play_episode(agent, environment, task, reward, key="k")


async def test_a_conversation_as_it_should_go_is_worth_everything():
    agent, trajectory = await played(
        call("find_order", "A26"), "Your mirror arrives on Monday.", call("refund_order", "G83"), "You get $45 back."
    )
    assert trajectory.success is True
    assert trajectory.reward == pytest.approx(1.0)
    assert [turn.content for turn in trajectory.turns if turn.role == "tool"] == [
        "black mirror, $75, shipped, arrives Monday",
        "refunded $45",
    ]
    assert agent.shop.refunded() == []  # it was another conversation's copy of the shop


async def test_the_right_words_without_the_calls_are_no_success():
    _, trajectory = await played("Your mirror arrives on Monday.", "You get $45 back.")
    assert trajectory.success is False
    assert trajectory.reward == pytest.approx(0.5)  # the facts are right, by whatever luck


async def test_a_refund_that_nobody_asked_for_costs_and_is_no_success():
    _, trajectory = await played(
        call("refund_order", "H10"), "Your mirror arrives on Monday.", call("refund_order", "G83"), "You get $45 back."
    )
    assert trajectory.success is False
    assert trajectory.breakdown["no_unasked_refund"] == -1.0


def test_the_shop_keeps_its_rules_and_a_copy_is_another_shop():
    shop = Shop()
    other = copy.deepcopy(shop)
    assert shop.refund_order("G83") == "refunded $45"
    assert shop.find_order("G83").endswith("refunded")
    assert shop.refund_order("G83") == "refused, it was refunded before"
    assert shop.refund_order("A26") == "refused, it is not delivered yet"
    assert (shop.refunded(), other.refunded()) == (["G83"], [])
    for wrong in ("Z99", "' OR 1=1 --", ""):
        with pytest.raises(LookupError, match="there is no order"):
            shop.find_order(wrong)


def test_the_shipped_files_are_what_the_script_writes():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_order_data.py", "--check"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_training_demonstrations_and_held_out_tasks_share_no_order_and_no_sentence():
    train, held = load_tasks(shipped(TASKS)), load_tasks(shipped(HELD_OUT))
    assert (len(train), len(held)) == (36, 24)

    def orders(tasks):
        return {action["arguments"]["order"] for task in tasks for action in task.extra["required_actions"]}

    shown = read_records(shipped(DEMONSTRATIONS), pairs=False)
    messages = [message for record in shown for message in (*record.prompt, *record.answers[0])]
    demonstrated = {one["arguments"]["order"] for message in messages for one in message.get("tool_calls", ())}
    assert not orders(train) & orders(held)
    assert not demonstrated & (orders(train) | orders(held))
    said = [{text for task in tasks for text in task.user_responses} for tasks in (train, held)]
    assert not said[0] & said[1]


async def test_the_demonstrations_are_worth_everything_when_they_are_played(caplog):
    """Every demonstrated answer is what the shop's tools lead to."""
    shop = Shop()
    for record in read_records(shipped(DEMONSTRATIONS), pairs=False):
        answer = record.answers[0]
        for message, after in pairwise(answer):
            for one in message.get("tool_calls", ()):
                assert after["content"] == getattr(shop, one["name"])(**one["arguments"])


async def test_forks_share_nothing_but_the_model(caplog):
    agent = CustomerServiceAgent("stub://")
    for number in range(50):
        fork = agent.fork(str(number))
        assert fork.limits == agent.limits
        assert fork.tools[0].function.__self__ is fork.shop is not agent.shop
    assert "cannot be copied" not in caplog.text


async def test_it_is_evaluated_on_held_out_customers():
    agent = CustomerServiceAgent("stub://I do not know.")
    held = load_tasks(shipped(HELD_OUT))[:3]
    result = await evaluate(agent, CustomerServiceEnvironment(), held, create_customer_service_reward())
    assert [episode.success for episode in result.episodes] == [False] * 3
