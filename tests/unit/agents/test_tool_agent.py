"""Agents with tools: what the model reads, what is trained, and where it ends."""

import pytest

from stateset_agents.agents import (
    AgentConfig,
    AgentRuntime,
    ToolAgent,
    ToolLimits,
    agent_from_record,
    agent_record,
)
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import ConversationEnvironment, Environment, EnvironmentState, TaskEnvironment
from stateset_agents.core.errors import ConfigError, EnvironmentFailed
from stateset_agents.core.outcome import Outcome, StopReason
from stateset_agents.core.reward import RewardFunction, RewardResult, TaskCompletionReward
from stateset_agents.core.tool_calls import ToolCall, replies, spoken
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)
CALL = '{"name": "price", "arguments": {"of": "tea"}}'
BAD = '{"name": "price"}'
ASK = [{"role": "user", "content": "How much is the tea?"}]
DEMO = {"id": "s", "user_responses": ["How much is the tea?", "And now?"]}


def price(of: str) -> str:
    """The price of a thing."""
    return f"${len(of)}"


def agent_with(*replies, tools=(price,), max_context=0, own=None, system_prompt=None, **options):
    used = own or codec
    agent = ToolAgent(AgentConfig("stub://", system_prompt=system_prompt), tools, **options)
    engine = StubEngine(tokenizer if own is None else own._tokenizer, used, replies)
    agent.runtime = AgentRuntime(None, used, engine, max_context)
    return agent


def filling():
    """An agent whose first call says more than its context has room for."""
    agent = agent_with(CALL, "It costs $3.", tools=[{"name": "price", "function": lambda of: "x" * 3000}])
    agent.runtime.max_context = len(codec.open([{"role": "user", "content": "How much is the tea?"}]).ids) + 300
    return agent


class One(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(1.0)


async def play(agent, environment=None, scenario=DEMO, reward=None):
    environment = environment or ConversationEnvironment([scenario])
    return await play_episode(agent, environment, environment.episode_scenarios()[0], reward or One(), key="k")


def said(turns):
    return [(turn.role, turn.content) for turn in turns]


async def test_a_call_is_made_and_its_result_leads_to_the_reply():
    agent = agent_with(CALL, "It costs $3.")
    turn = await agent.process_turn([], "How much is the tea?")
    assert turn.content == "It costs $3."
    assert said(turn.steps) == [("assistant", CALL), ("tool", "$3")]
    assert turn.steps[0].tool_calls == (ToolCall("price", {"of": "tea"}),)
    assert await agent.generate_response(ASK) == "It costs $3."


async def test_calls_and_replies_are_trained_and_results_are_not():
    trajectory = await play(agent_with(CALL, "It costs $3.", "Still $3."))
    assert said(trajectory.turns) == [
        ("user", "How much is the tea?"),
        ("assistant", CALL),
        ("tool", "$3"),
        ("assistant", "It costs $3."),
        ("user", "And now?"),
        ("assistant", "Still $3."),
    ]
    assert (trajectory.length, trajectory.edited_turns) == (2, 0)
    (row,) = trajectory.rows  # the template appends, so that one row holds everything
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    instructions = codec.tool_format.instructions([tool.definition() for tool in agent_with("x").tools])
    parts = [
        (0, f"<|im_start|>system\n{instructions}<|im_end|>\n<|im_start|>user\nHow much is the tea?<|im_end|>\n"),
        (0, "<|im_start|>assistant\n"),
        (1, f"{CALL}<|im_end|>"),
        (0, "\n<|im_start|>tool\n$3<|im_end|>\n<|im_start|>assistant\n"),
        (1, "It costs $3.<|im_end|>"),
        (0, "\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"),
        (1, "Still $3.<|im_end|>"),
    ]
    assert row.ids == [token for _, text in parts for token in encode(text)]
    assert row.mask == [mask for mask, text in parts for _ in encode(text)]


async def test_several_calls_in_a_turn_have_their_results_in_order():
    agent = agent_with(f"{CALL}\n{CALL.replace('tea', 'coffee')}", "Both.")
    turn = await agent.process_turn([], "Prices?")
    assert said(turn.steps)[1:] == [("tool", "$3"), ("tool", "$6")]


async def test_the_model_is_told_of_a_call_that_is_wrong_and_goes_on():
    turn = await agent_with(BAD, CALL, "It costs $3.").process_turn([], "Price?")
    assert [step.tool_result.error for step in turn.steps if step.tool_result] == ["malformed_call", None]
    assert turn.steps[0].tool_calls == ()
    assert turn.content == "It costs $3."


async def test_beyond_the_budget_a_turn_is_the_reply_as_it_stands():
    made = []

    def price(of: str):
        made.append(of)
        return "?"

    turn = await agent_with(CALL, tools=[price], limits=ToolLimits(calls_per_turn=2)).process_turn([], "Price?")
    assert made == ["tea", "tea"]
    assert [step.tool_result.error for step in turn.steps if step.tool_result] == [None, None, "budget"]
    assert (turn.content, spoken(turn)) == (CALL, "")  # nobody hears calls that were not made
    assert [call.name for call in turn.tool_calls] == ["price"]


async def test_an_agent_without_tools_answers_whatever_it_says():
    turn = await agent_with(CALL, tools=()).process_turn([], "Price?")
    assert (turn.content, turn.steps) == (CALL, [])


async def test_the_stream_shows_replies_and_no_calls():
    agent = agent_with(f"I look it up.\n{CALL}", "It costs $3.")
    pieces = [piece async for piece in agent.stream_response(ASK)]
    assert "".join(pieces) == "I look it up.\nIt costs $3."
    assert len(pieces) > 4


async def test_a_context_that_fills_up_while_calling_ends_with_the_agents_last_word():
    trajectory = await play(filling())
    assert trajectory.outcome is Outcome.TRUNCATED
    assert [turn.role for turn in trajectory.turns] == ["user", "assistant", "tool"]
    assert (trajectory.length, replies(trajectory.turns)) == (0, [])  # a call is never taken for a reply
    assert sum(row.trained_tokens for row in trajectory.rows) == len(tokenizer.encode(f"{CALL}<|im_end|>"))


@pytest.mark.parametrize(("of", "done"), [("tea", True), ("coffee", False)])
async def test_what_was_done_before_the_context_ended_counts(of, done):
    """Mutation: the environment is not told of a move without a reply, and the action was never done."""
    action = {"name": "priced", "tool": "price", "arguments": {"of": of}}
    tasks = TaskEnvironment([{"goal": "Price tea", "user_responses": ["The tea?"], "required_actions": [action]}])
    episode = await play_episode(filling(), tasks, tasks.episode_scenarios()[0], TaskCompletionReward(), key="k")
    assert [turn.role for turn in episode.turns] == ["user", "assistant", "tool"]
    assert (episode.outcome, episode.success, episode.reward) == (Outcome.TRUNCATED, done, float(done))


async def test_an_environment_hears_of_an_unfinished_move_and_of_no_other():
    heard = []

    class Listening(ConversationEnvironment):
        async def unfinished(self, state, steps):
            heard.append([turn.role for turn in steps])
            return await super().unfinished(state, steps)

    await play(agent_with(CALL, "It costs $3.", "Still $3."), Listening([DEMO]))
    assert heard == []
    await play(filling(), Listening([DEMO]))
    assert heard == [["assistant", "tool"]]


async def test_an_override_may_use_the_reply_and_its_steps_stay():
    class Polite(ToolAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            turn.metadata["calls"] = len(turn.steps) // 2
            return turn

    agent = agent_with(CALL, "It costs $3.", "Still.")
    polite = Polite(agent.config, [price])
    polite.runtime = agent.runtime
    trajectory = await play(polite)
    assert trajectory.turns[3].metadata == {"calls": 1}
    assert len(trajectory.rows) == 1


async def test_steps_that_are_no_calls_and_results_are_the_agents_failure():
    class Odd(ToolAgent):
        async def process_turn(self, history, user_input, context=None):
            return ConversationTurn("assistant", "a", steps=[ConversationTurn("user", "b")])

    trajectory = await play(Odd(AgentConfig("stub://a")))
    assert trajectory.outcome is Outcome.AGENT
    assert "the steps of the turn of process_turn are ['user']" in trajectory.error


class Shop(Environment):
    """Its tools belong to the episode: they change its state."""

    max_turns = 2
    fails = False

    async def reset(self, scenario=None):
        return EnvironmentState("e", context={"stock": 2}, scenario=scenario)

    def episode_tools(self, state):
        def buy() -> str:
            """Buy one."""
            if self.fails:
                raise EnvironmentFailed("the till is stuck")
            state.context["stock"] -= 1
            return f"{state.context['stock']} left"

        return [{"function": buy, "sequential": True}]

    async def step(self, state, action):
        after = state.copy()
        after.turn_count += 1
        return after, ConversationTurn("user", "More!"), 0.5, False


BUY = '{"name": "buy", "arguments": {}}'


async def test_an_environments_tools_change_the_state_of_their_own_episode():
    shop = Shop()
    trajectories = [await play(agent_with(BUY, "Here.", tools=()), shop) for _ in range(2)]
    for trajectory in trajectories:
        assert [turn.content for turn in trajectory.turns if turn.role == "tool"] == ["1 left", "0 left"]
        assert trajectory.turn_rewards == [0.0, 0.5, 0.0, 0.5]
        assert trajectory.reward == 2.0


async def test_a_broken_world_is_the_environments_failure_and_never_the_agents():
    shop = Shop()
    shop.fails = True
    trajectory = await play(agent_with(BUY, "Here.", tools=()), shop)
    assert (trajectory.outcome, trajectory.reward) == (Outcome.ENVIRONMENT, None)
    assert "a tool: EnvironmentFailed: the till is stuck" in trajectory.error


async def test_an_agent_that_calls_no_tools_is_no_match_for_an_environment_that_offers_some():
    from stateset_agents.agents import MultiTurnAgent

    with pytest.raises(ConfigError, match="the environment offers tools, and MultiTurnAgent calls none"):
        await play(MultiTurnAgent(AgentConfig("stub://a")), Shop())


async def test_two_tools_of_one_name_are_refused_before_anything_is_said():
    def buy():
        pass

    with pytest.raises(ConfigError, match="called 'buy', and so is another tool"):
        await play(agent_with("a", tools=[buy]), Shop())


async def test_forks_have_their_own_copy_of_what_the_tools_belong_to():
    class Book:
        def __init__(self):
            self.notes = []

        def note(self, text: str) -> str:
            self.notes.append(text)
            return f"{len(self.notes)} notes"

    book = Book()
    agent = agent_with('{"name": "note", "arguments": {"text": "a"}}', "Done.", "Done.", tools=[book.note])
    for _ in range(2):
        trajectory = await play(agent)
        assert trajectory.turns[2].content == "1 notes"
    assert book.notes == []


def test_settings_that_are_wrong():
    config = AgentConfig("stub://a")
    with pytest.raises(
        ConfigError, match=r"tool_format is 'xml', which does not exist\. Known: auto, hermes, llama, json"
    ):
        ToolAgent(config, [price], tool_format="xml")
    with pytest.raises(ConfigError, match="so is another tool"):
        ToolAgent(config, [price, price])


async def test_a_native_form_needs_a_template_that_tells_of_tools():
    with pytest.raises(ConfigError, match='does not tell it of tools; use "json"'):
        await agent_with("a", tool_format="hermes").process_turn([], "Hi")


async def test_the_memory_window_never_hides_the_calls_of_the_current_move():
    fork = agent_with("-", CALL, "It costs $3.", memory_window=2).fork("k")  # a stub counts the turns that it sees
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    history = [ConversationTurn(role, text) for role, text in turns]
    turn = await fork.process_turn(history, "How much is the tea?")
    assert turn.content == "It costs $3."
    (row,) = fork.rows
    shown = tokenizer.decode(row.ids).split("<|im_start|>")[2:]
    expected = ["user\nc", "assistant\nd", "user\nHow much is the tea?", f"assistant\n{CALL}", "tool\n$3"]
    assert shown == [f"{text}<|im_end|>\n" for text in expected] + ["assistant\nIt costs $3.<|im_end|>"]


async def test_stop_reasons_pass_through():
    turn = await agent_with("It costs.").process_turn([], "Hi")
    assert turn.stop_reason is StopReason.STOP


async def test_a_model_and_tools_in_one_call():
    agent = ToolAgent.from_model("stub://" + CALL.replace("|", "%7C") + "|It costs $3.", tools=[price])
    assert await agent.generate_response(ASK) == "It costs $3."
    with pytest.raises(ConfigError, match=r"tools\[0\] is 3"):
        ToolAgent.from_model("stub://a", tools=[3])


def test_a_record_names_the_tools_and_an_agent_that_lacks_one_is_refused():
    record = agent_record(agent_with("a"))
    assert [tool["name"] for tool in record["tools"]] == ["price"]
    with pytest.raises(ConfigError, match="trained with the tools price, and MultiTurnAgent lacks price"):
        agent_from_record(record)
    with pytest.raises(ConfigError, match="ToolAgent lacks price"):
        agent_from_record(record, ToolAgent)
    again = agent_from_record(record, lambda config: ToolAgent(config, [price]))
    assert again.tools[0].name == "price"


async def pieces_of(agent, message="How much is the tea?"):
    return [
        piece if isinstance(piece, str) else (piece.role, piece.content)
        async for piece in agent.stream_turn([], message)
    ]


async def test_a_streamed_turn_shows_calls_before_they_are_made_and_is_the_turn_at_last():
    made = []

    def price(of: str):
        made.append(of)
        return "$3"

    agent = agent_with(f"I look it up.\n{CALL}", "It costs $3.", tools=[price])
    pieces, made_before = [], []
    async for piece in agent.stream_turn([], "How much is the tea?"):
        pieces.append(piece)
        if not isinstance(piece, str):
            made_before.append(list(made))
    assert made_before == [[], ["tea"], ["tea"]]
    turn = pieces[-1]
    assert [step for step in pieces if not isinstance(step, str)] == [*turn.steps, turn]
    assert said(turn.steps) == [("assistant", f"I look it up.\n{CALL}"), ("tool", "$3")]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "I look it up.\nIt costs $3."
    whole = await agent.process_turn([], "How much is the tea?")
    assert said([*whole.steps, whole]) == said([*turn.steps, turn])


@pytest.mark.parametrize("words", ["", "I look it up.\n"])
async def test_a_streamed_reply_of_calls_that_were_not_made_says_nothing(words):
    agent = agent_with(CALL, CALL, words + CALL, limits=ToolLimits(calls_per_turn=1))
    *steps, turn = [piece async for piece in agent.stream_turn([], "Price?")]
    assert [step.role for step in steps] == ["assistant", "tool", "assistant", "tool"]
    assert (turn.content, spoken(turn)) == (words + CALL, "")


async def test_a_streamed_reply_after_the_last_call_is_shown():
    agent = agent_with(CALL, CALL, "It costs $3.", limits=ToolLimits(calls_per_turn=1))
    pieces = [piece async for piece in agent.stream_turn([], "Price?")]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "It costs $3."


@pytest.mark.parametrize("overridden", ["process_turn", "next_turn"])
async def test_an_override_is_what_is_streamed(overridden):
    async def shouting(self, *arguments):
        turn = await getattr(ToolAgent, overridden)(self, *arguments)
        turn.content = turn.content.upper()
        return turn

    loud = type("Loud", (ToolAgent,), {overridden: shouting})
    agent = loud(AgentConfig("stub://"), [price])
    agent.runtime = agent_with("It costs $3.").runtime
    assert await pieces_of(agent) == ["IT COSTS $3.", ("assistant", "IT COSTS $3.")]


async def test_what_takes_the_place_of_process_turn_in_one_agent_is_what_is_streamed():
    agent = agent_with("It costs $3.")

    async def other(history, user_input, context=None):
        return ConversationTurn("assistant", "Ask later.")

    agent.process_turn = other
    assert await pieces_of(agent) == ["Ask later.", ("assistant", "Ask later.")]
