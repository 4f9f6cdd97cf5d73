"""What is typed in a chat, with the tiny model and with scripted ones; how the program starts and what it refuses."""

import asyncio

import pytest

from stateset_agents.agents import MultiTurnAgent, ToolAgent
from stateset_agents.cli.talk import Talk
from stateset_agents.cli.terminal import Terminal
from stateset_agents.core.errors import ConfigError


def calculator(expression: str) -> str:
    """Compute.

    Args:
        expression: what.
    """
    return f"{expression} is 4"


def talk_of(agent, reward=None, seed=1):
    def none():
        raise ConfigError("there is none")

    asyncio.run(agent.initialize())
    return Talk(agent, none if reward is None else lambda: reward, Terminal(), seed)


def typed(talk, *lines):
    async def all_of_them():
        return [await talk.take(line) for line in lines]

    return asyncio.run(all_of_them())


@pytest.fixture
def hello():
    return MultiTurnAgent.from_model("stub://Hello there.|And again.", system_prompt="Be kind.")


def test_a_reply_is_shown_and_the_conversation_goes_on_from_it(hello, capsys):
    talk = talk_of(hello)
    assert typed(talk, "Hi", "  ", "More") == [True, True, True]
    assert capsys.readouterr().out == "Hello there.\nAnd again.\n"
    assert [(turn.role, turn.content) for turn in talk.turns] == [
        ("user", "Hi"),
        ("assistant", "Hello there."),
        ("user", "More"),
        ("assistant", "And again."),
    ]


def test_the_same_seed_gives_the_same_replies_and_a_reset_gives_others():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=6, temperature=1.0)

    def replies(seed):
        talk = talk_of(agent, seed=seed)
        typed(talk, "Hi")
        first = talk.turns[-1].content
        typed(talk, "/reset")
        assert talk.turns == []
        typed(talk, "Hi")
        return first, talk.turns[-1].content

    one = replies(1)
    assert replies(1) == one
    assert one[0] != one[1]
    assert replies(2) != one


def test_calls_of_tools_are_folded_to_a_line_each_and_the_reply_follows(capsys):
    reply = 'Let me see.\n<tool_call>{"name": "calculator", "arguments": {"expression": "2+2"}}</tool_call>'
    agent = ToolAgent.from_model(f"stub://{reply}|It is 4.", tools=[calculator])
    agent.tool_format = "hermes"
    talk = talk_of(agent)
    try:
        typed(talk, "What is 2+2?")
    except ConfigError:
        pytest.skip("the stub shows no tools")
    shown = capsys.readouterr()
    assert shown.out == "Let me see.\nIt is 4.\n"
    assert '  calculator(expression="2+2") -> 2+2 is 4\n' in shown.err
