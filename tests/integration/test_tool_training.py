"""An agent with tools is trained, kept and taken up again."""

import json

import pytest

from stateset_agents import MultiTurnAgent, ToolAgent, train
from stateset_agents.agents import AgentConfig, load_agent_from_checkpoint
from stateset_agents.core.environment import ConversationEnvironment, TaskEnvironment
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.reward import RewardFunction, RewardResult

SCENARIOS = [{"id": str(number), "user_responses": ["How much is the tea?", "And now?"]} for number in range(2)]
CALL = '{"name": "price", "arguments": {"of": "tea"}}'
SMALL = {"num_generations": 4, "batch_size": 4, "gradient_accumulation_steps": 1, "warmup_steps": 0, "save_every": 4}


def price(of: str) -> str:
    """The price of a thing."""
    return f"${len(of)}"


def other(of: str) -> str:
    """Something else."""
    return of


class Prices(RewardFunction):
    """Pays for calls that worked, and a little for the letter e, so that samples differ."""

    async def compute_reward(self, turns, context=None):
        worked = sum(turn.tool_result is not None and turn.tool_result.ok for turn in turns)
        return RewardResult(worked + sum(turn.content.count("e") for turn in turns if turn.role == "assistant") / 10)


class Silent(MultiTurnAgent):
    """It answers in its own way."""

    async def process_turn(self, history, user_input, context=None):
        return await super().process_turn(history, user_input, context)


def agent_of(*tools):
    return ToolAgent(AgentConfig("tiny", max_new_tokens=12, temperature=1.0), tools)


async def trained(folder, agent, **more):
    return await train(
        agent,
        ConversationEnvironment(SCENARIOS),
        reward_fn=Prices(),
        config_overrides={**SMALL, "num_episodes": more.pop("episodes", 8)},
        output_dir=folder,
        quiet=True,
        **more,
    )


async def test_an_imitated_call_is_made_trained_and_answered(tmp_path):
    """Imitation until the call is certain, then a step of learning from conversations in which it is made."""
    talk = [
        {"role": "user", "content": "How much is the tea?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "price", "arguments": {"of": "tea"}}]},
        {"role": "tool", "content": "$3"},
        {"role": "assistant", "content": "It costs $3."},
    ]
    data = tmp_path / "talks.jsonl"
    data.write_text(json.dumps({"messages": talk}) + "\n")
    agent = ToolAgent(AgentConfig("tiny", max_new_tokens=80, temperature=0.3), [price])
    settings = {"algorithm": "sft", "data_file": str(data), "eval_every": 0, "learning_rate": 0.01, "batch_size": 1}
    settings |= {"gradient_accumulation_steps": 1, "warmup_steps": 0, "num_episodes": 40}
    await train(agent, ConversationEnvironment(SCENARIOS), config_overrides=settings, quiet=True)
    turn = await agent.fork("k").process_turn([], "How much is the tea?")
    assert [step.content for step in turn.steps] == [CALL, "$3"]
    assert turn.content == "It costs $3."
    await trained(tmp_path / "run", agent, episodes=4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()]
    results = [turn["tool_result"] for line in lines for turn in line["turns"] if turn["role"] == "tool"]
    assert any(result["ok"] and result["name"] == "price" for result in results)
    calls = [call for line in lines for turn in line["turns"] for call in turn.get("tool_calls", [])]
    assert {"name": "price", "arguments": {"of": "tea"}} in calls


async def test_a_checkpoint_names_the_tools_and_loads_with_them_only(tmp_path):
    await trained(tmp_path / "run", agent_of(price))
    with pytest.raises(ConfigError, match="trained with the tools price, and MultiTurnAgent lacks price"):
        await load_agent_from_checkpoint(tmp_path / "run")
    loaded = await load_agent_from_checkpoint(tmp_path / "run", lambda config: ToolAgent(config, [price]))
    assert await loaded.generate_response([{"role": "user", "content": "Hi"}])


async def test_a_run_is_not_resumed_with_other_tools(tmp_path):
    await trained(tmp_path / "run", agent_of(price))
    with pytest.raises(ConfigError, match=r"agent\.tools"):
        await trained(tmp_path / "run", agent_of(price, other), episodes=12, resume=True)
    await trained(tmp_path / "run", agent_of(price), episodes=12, resume=True)


@pytest.mark.parametrize("agent", [agent_of(price), MultiTurnAgent(AgentConfig("tiny")), Silent(AgentConfig("tiny"))])
async def test_a_task_that_the_agent_has_no_tool_for_is_refused_before_anything_is_made(tmp_path, agent):
    """Mutation: a whole run is rewarded for everything but the task."""
    tasks = TaskEnvironment([{"id": "t", "goal": "g", "required_actions": [{"name": "a", "tool": "prize"}]}])
    settings = {**SMALL, "num_episodes": 4}
    work = train(agent, tasks, reward_fn=Prices(), config_overrides=settings, output_dir=tmp_path / "run", quiet=True)
    if isinstance(agent, Silent):  # its override may make calls that nobody knows of
        await work
        return
    with pytest.raises(DataError, match="task 't': the action 'a' can never be done: there is no tool 'prize'"):
        await work
    assert list(tmp_path.iterdir()) == []
