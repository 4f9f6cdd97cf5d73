"""What an agent with tools keeps of a conversation: its own steps, its own copies, and what is no call at all."""

import copy
import threading
from urllib.parse import quote

import pytest

from stateset_agents.agents import AgentConfig, AgentRuntime, MultiTurnAgent, ToolAgent
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import ConversationEnvironment, Environment
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.tool_calls import ToolCall
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

CALL = '{"name": "price", "arguments": {"of": "tea"}}'


def price(of: str) -> str:
    """The price of a thing."""
    return f"${len(of)}"


def stub(*replies):
    return AgentConfig("stub://" + "|".join(map(quote, replies)))


async def play(agent, environment=None):
    environment = environment or ConversationEnvironment([{"user_responses": ["The tea?", "And now?"]}])
    return await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")


class Book:
    def __init__(self):
        self.notes = []

    def note(self, text: str) -> int:
        self.notes.append(text)
        return len(self.notes)


class Locked(Book):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_a_tool_that_cannot_be_copied_is_shared_alone_and_said_once(caplog):
    """Mutation: without `Tool.__deepcopy__` the forks share all of the tools, and nobody is told which is to blame."""
    book, locked = Book(), Locked()
    agent = ToolAgent(
        stub("a"), [{"name": "copied", "function": book.note}, {"name": "locked", "function": locked.note}]
    )
    forks = [agent.fork(str(n)) for n in range(2)]
    owners = [[tool.function.__self__ for tool in one.tools] for one in (agent, *forks)]
    assert len({id(first) for first, _ in owners}) == 3
    assert [second for _, second in owners] == [locked] * 3
    (told,) = [record.getMessage() for record in caplog.records if "cannot be copied" in record.getMessage()]
    assert told.startswith("the tool 'locked' cannot be copied (cannot pickle '_thread.lock' object)")


def test_tools_of_one_owner_have_one_copy_of_it():
    class Till(Book):
        def count(self) -> int:
            return len(self.notes)

    till = Till()
    fork = ToolAgent(stub("a"), [till.note, till.count]).fork("k")
    note, count = (tool.function for tool in fork.tools)
    assert note.__self__ is count.__self__ is not till


async def test_a_history_without_the_steps_of_a_turn_goes_on_in_the_same_row():
    """Mutation: the turn is taken for a reply without calls, and the second one opens a row of its own."""
    fork = ToolAgent(stub(CALL, "It costs $3.", "Still."), [price]).fork("k")
    first = await fork.process_turn([], "The tea?")
    asked = ConversationTurn("user", "The tea?")
    await fork.process_turn([asked, first], "And now?")
    assert len(fork.rows) == 1
    again = ToolAgent(stub(CALL, "It costs $3.", "Still."), [price]).fork("k")
    first = await again.process_turn([], "The tea?")
    await again.process_turn([asked, *first.steps, first], "And now?")
    assert [row.ids for row in again.rows] == [row.ids for row in fork.rows]


@pytest.mark.parametrize(
    "message",
    [
        ConversationTurn("assistant", "", tool_calls=(ToolCall("price", {"of": "tea"}),)),
        {"role": "assistant", "content": None, "tool_calls": [{"name": "price", "arguments": {}}]},
        {"role": "assistant", "content": "I look.", "tool_calls": [{"function": {"name": "price", "arguments": "{}"}}]},
    ],
)
async def test_calls_that_stand_beside_the_words_are_refused_because_the_model_would_not_read_them(message):
    for agent in (MultiTurnAgent(stub("a")), ToolAgent(stub("a"), [price])):
        with pytest.raises(ConfigError, match="a message calls 'price' in its tool_calls and not in its content"):
            await agent.process_turn([{"role": "user", "content": "Hi"}, message], "And?")


@pytest.mark.parametrize("calls", [5, "price", {"name": "price"}])
async def test_calls_that_are_no_list_are_refused(calls):
    message = {"role": "assistant", "content": "I look.", "tool_calls": calls}
    with pytest.raises(ConfigError, match="they must be a list of calls"):
        await MultiTurnAgent(stub("a")).process_turn([{"role": "user", "content": "Hi"}, message], "And?")


async def test_the_log_form_of_a_turn_is_read_back():
    fork = ToolAgent(stub(CALL, "It costs $3.", "Still."), [price])
    first = await fork.process_turn([], "The tea?")
    history = [{"role": "user", "content": "The tea?"}, *(turn.to_dict() for turn in (*first.steps, first))]
    assert (await fork.process_turn(history, "And now?")).content == "Still."


async def test_an_override_that_drops_the_calls_is_told_so_once(caplog):
    """Mutation: the calls are masked, the environment never hears of them, and nothing says so."""

    class Curt(ToolAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            return ConversationTurn("assistant", turn.content)

    class Wordy(ToolAgent):
        async def process_turn(self, history, user_input, context=None):
            said = await self.generate_response([*history, {"role": "user", "content": user_input}])
            return ConversationTurn("assistant", said)

    class Faithful(ToolAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            return ConversationTurn("assistant", turn.content, steps=turn.steps)

    for kind in (Faithful, Curt, Curt, Wordy):
        await play(kind(stub(CALL, "It costs $3.", "Still."), [price]))
    told = [record.getMessage() for record in caplog.records if "did not reach" in record.getMessage()]
    assert [one.rpartition("(")[2] for one in told] == ["Curt.process_turn)", "Wordy.process_turn)"]
    assert told[0].startswith("1 of 1 turns with calls did not reach the conversation, so that they are not trained")


async def test_what_an_environment_offers_is_read_once_in_a_move(monkeypatch):
    """Mutation: describing a function (signature, docstring, schema) takes milliseconds, several times a reply."""
    described = []

    class Stall(Environment):
        max_turns = 1

        def episode_tools(self, state):
            return [price]

        async def step(self, state, action):
            return state, None, 0.0, True

    def spy(function, *more, **named):
        described.append(function)
        return known(function, *more, **named)

    from stateset_agents.core import tools

    known = tools._from_signature
    monkeypatch.setattr(tools, "_from_signature", spy)
    episode = await play(ToolAgent(stub(CALL, "It costs $3.")), Stall())
    assert [turn.role for turn in episode.turns] == ["user", "assistant", "tool", "assistant"]
    assert described == [price]


@pytest.mark.parametrize(
    ("opens", "reply", "called"),
    [
        (True, f"I could call\n{CALL}\nor not", False),
        (True, f"I could call\n{CALL}\n</think>\nIt is free.", False),
        (True, f"Let me see.\n</think>\n{CALL}", True),
        (False, f"I call\n{CALL}", True),
    ],
)
async def test_a_call_within_a_thought_that_the_prompt_opened_is_none(opens, reply, called):
    """Mutation: the model's `<think>` is in the prompt and not in the reply, where it was looked for."""
    tokenizer = copy.deepcopy(load_tokenizer("tiny"))
    if opens:
        header = "'<|im_start|>assistant\n'"
        assert header in tokenizer.chat_template
        tokenizer.chat_template = tokenizer.chat_template.replace(header, header[:-1] + "<think>\n'")
    codec = ChatCodec(tokenizer)
    assert codec.opens_thought is opens
    agent = ToolAgent(stub("-"), [price])
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, (reply, "Done.")), 0)
    turn = await agent.process_turn([], "The tea?")
    assert any(step.tool_calls for step in turn.steps) is called
