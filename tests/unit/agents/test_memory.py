"""What of a long conversation is shown, worked out by hand."""

from stateset_agents.agents import AgentConfig, AgentRuntime, MultiTurnAgent
from stateset_agents.agents.memory import NOTE_LENGTH, first_in_window, first_that_fits, notes_of
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)


def talk(roles):
    return [
        {"role": {"u": "user", "a": "assistant", "t": "tool"}[role], "content": f"{role}{at}"}
        for at, role in enumerate(roles)
    ]


def test_a_window_begins_with_a_user_and_the_newest_messages_are_no_history():
    talked = talk("uauau")
    assert [first_in_window(talked, window, 1) for window in (None, 4, 3, 2, 1)] == [0, 0, 2, 2, 4]
    assert first_in_window(talk("uatatau"), 4, 1) == 6  # four would begin in the middle of a call
    assert first_in_window(talk("uauat"), 1, 3) == 2  # a call under way and its question are no history


def test_where_the_context_decides_messages_leave_eight_at_a_time():
    talked = talk("ua" * 12 + "u")
    asked = []

    def fits(first):
        asked.append(first)
        return first >= 10

    assert first_that_fits(talked, 0, 1, fits) == 16
    assert asked == [0, 8, 16]
    assert first_that_fits(talked, 0, 1, lambda first: False) == 24
    assert first_that_fits(talk("u"), 0, 1, lambda first: False) == 0


def test_the_notes_are_the_beginnings_of_what_left():
    assert notes_of([]) == ""
    assert notes_of(talk("ua")) == "Earlier in this conversation:\nuser: u0\nassistant: a1"
    long = {"role": "user", "content": "word " * 100}
    (line,) = notes_of([long]).splitlines()[1:]
    assert line.endswith("word ...")
    assert len(line) <= len("user: ") + NOTE_LENGTH + len(" ...")
    assert len(notes_of(talk("ua" * 50)).splitlines()) == 13


def chatty(turns, max_context, **config):
    agent = MultiTurnAgent(AgentConfig("stub://", max_new_tokens=40, **config))
    engine = StubEngine(tokenizer, codec, ["An answer of some words."])
    agent.runtime = AgentRuntime(None, codec, engine, max_context)
    scenario = {"id": "s", "user_responses": [f"A question of some words, number {n}." for n in range(turns)]}
    return agent, ConversationEnvironment([scenario], max_turns=turns)


async def play(agent, environment):
    return await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")


async def test_a_compressed_conversation_goes_on_where_another_is_cut():
    cut = await play(*chatty(30, 900))
    assert cut.outcome is Outcome.TRUNCATED
    whole = await play(*chatty(30, 900, context_compression=True))
    assert (whole.outcome, whole.length) == (Outcome.OK, 30)
    assert all(len(row) <= 900 for row in whole.rows)
    assert 1 < len(whole.rows) < 15
    assert all(turn.sampled for turn in whole.assistant_turns)
    assert sum(row.trained_tokens for row in whole.rows) == 30 * len(
        tokenizer.encode("An answer of some words.<|im_end|>")
    )


async def test_what_left_the_window_is_noted_in_the_system_prompt():
    agent, environment = chatty(3, 0, memory_window=2, context_compression=True, system_prompt="Be kind.")
    trajectory = await play(agent, environment)
    last = tokenizer.decode(trajectory.rows[-1].ids)
    assert last.startswith(
        "<|im_start|>system\nBe kind.\n\nEarlier in this conversation:\nuser: A question of some words, number 0.\n"
        "assistant: An answer of some words.<|im_end|>\n<|im_start|>user\nA question of some words, number 1."
    )
