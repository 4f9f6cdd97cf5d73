import asyncio
import gc

import pytest

from stateset_agents.core.environment import ConversationEnvironment, EpisodeStatus
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.tool_calls import ToolCall, ToolResult
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.core.users import User, UserFailed, keep_unheard
from stateset_agents.engines.chat_model import ChatFailed
from stateset_agents.environments import BadLine, ModelUser, user_prompt
from stateset_agents.environments.user_prompt import GREETING, line_of, loops

SHOES = Scenario(
    "shoes",
    topic="returns",
    context="Bought shoes that pinch.",
    agent_context="Returns take 30 days.",
    facts={"period": "30 days"},
    ground_truth="30 days",
    initial_state={"user_goal": "Send them back", "user_knowledge": "beginner", "mood": ["tired", "polite"]},
    success_criteria={"user_satisfaction": "high"},
)
SCRIPTED = Scenario("scripted", ("Hi there", "never said"))


def test_the_prompt_says_all_that_concerns_the_user_and_nothing_that_the_agent_should_find_out():
    prompt = user_prompt(SHOES, "Ada, 70, hard of hearing", "[BYE]")
    for line in (
        "Who the person is: Ada, 70, hard of hearing",
        "The situation: Bought shoes that pinch.",
        "What it is about: returns",
        "What the person wants: Send them back",
        "What the person knows about it: beginner",
        "Mood: tired; polite",
        "How satisfied the person wants to be: high",
    ):
        assert f"\n{line}\n" in prompt
    assert "say [BYE] and nothing else" in prompt
    assert "30 days" not in prompt


def test_a_scenario_that_says_nothing_leaves_the_rules_alone():
    rules = user_prompt(Scenario("blank"))
    assert [len(part.splitlines()) for part in rules.split("\n\n")] == [1, 1]


async def test_the_model_is_asked_with_the_roles_swapped_and_hears_replies_alone(told):
    model = told("Thanks, and when?")
    user = ModelUser(model, temperature=0.3, max_tokens=9, prompt=lambda scenario, persona, marker: f"be {persona}")
    assert isinstance(user, User)
    turns = [
        ConversationTurn("user", "Where is it?"),
        ConversationTurn("assistant", "<call>", tool_calls=(ToolCall("orders", {}),)),
        ConversationTurn("tool", "on the way", tool_result=ToolResult("orders")),
        ConversationTurn("assistant", "It is on the way [DONE]."),
    ]
    assert await user.reply(SHOES, turns, "Ada") == "Thanks, and when?"
    (asked,) = model.asked
    assert asked["messages"] == [
        {"role": "system", "content": "be Ada"},
        {"role": "user", "content": GREETING},
        {"role": "assistant", "content": "Where is it?"},
        {"role": "user", "content": "It is on the way ."},  # the marker is not the agent's to say
    ]
    assert (asked["temperature"], asked["max_tokens"]) == (0.3, 9)
    assert user.asked(SHOES, turns, "Ada") == asked["messages"]


async def test_the_key_is_made_of_seed_scenario_and_what_was_said(told, talk):
    async def key(turns, seed=0, scenario=SHOES, **settings):
        model = told("more")
        await ModelUser(model, seed=seed, **settings).reply(scenario, turns)
        return model.asked[0]["key"]

    first = await key(talk("A", "B"))
    assert first == await key(talk("A", "B"), temperature=0.1)
    others = [
        await key(talk("A", "C")),
        await key(talk("A", "B"), seed=1),
        await key(talk("A", "B"), scenario=Scenario("boots")),
        await key(talk("A", "B", "more", "C")),
    ]
    assert len({first, *others}) == 5


async def test_the_opening_is_the_scenarios_first_line_or_the_models_asked_for_once(told):
    model = told("Hello, my shoes pinch.", "another opening")
    user = ModelUser(model)
    assert await user.opening(SCRIPTED) == "Hi there"
    assert model.asked == []
    together = await asyncio.gather(*(user.opening(SHOES) for _ in range(4)))
    assert together == ["Hello, my shoes pinch."] * 4
    assert await user.opening(SHOES) == "Hello, my shoes pinch."
    assert len(model.asked) == 1
    assert await user.opening(SHOES, "another person") == "another opening"


async def test_an_opening_that_failed_is_asked_for_again(told):
    user = ModelUser(told(ChatFailed("500"), "Hello"))
    failures = await asyncio.gather(user.opening(SHOES), user.opening(SHOES), return_exceptions=True)
    assert [str(failure) for failure in failures] == ["500", "500"]
    assert await user.opening(SHOES) == "Hello"


async def test_a_conversation_that_gives_up_waiting_leaves_the_opening_to_the_others():
    class Slow:
        calls = 0

        async def complete(self, messages, **request):
            self.calls += 1
            await asyncio.sleep(0.05)
            return "Hello"

        def describe(self):
            return {}

    model = Slow()
    user = ModelUser(model)
    waiting = asyncio.create_task(user.opening(SHOES))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(user.opening(SHOES), 0.01)
    assert (await waiting, model.calls) == ("Hello", 1)


async def test_an_opening_that_nobody_waits_for_any_more_fails_in_silence():
    class Slow:
        async def complete(self, messages, **request):
            await asyncio.sleep(0.02)
            raise ChatFailed("500")

        def describe(self):
            return {}

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ModelUser(Slow()).opening(SHOES), 0.01)
    await asyncio.sleep(0.05)
    gc.collect()
    assert told == []


def test_an_opening_is_kept_from_one_event_loop_to_the_next(told):
    user = ModelUser(told("Hello", "another"))
    assert [asyncio.run(user.opening(SHOES)) for _ in range(2)] == ["Hello", "Hello"]


async def test_the_marker_ends_the_conversation_and_nobody_hears_it(told, talk):
    user = ModelUser(told("Thanks, that was all! [DONE]"))
    with keep_unheard() as unheard:
        assert await user.reply(SHOES, talk("A", "B")) is None
    assert unheard == ["Thanks, that was all! [DONE]"]


async def test_the_turn_cap_counts_the_opening_and_saves_the_question(told, talk):
    model = told("more")
    user = ModelUser(model, max_turns=2)
    assert await user.reply(SHOES, talk("A", "B")) == "more"
    assert await user.reply(SHOES, talk("A", "B", "more", "C")) is None
    assert len(model.asked) == 1


LOOP = "I want my money back. " * 9
BAD = [
    ("", "said nothing"),
    (" \n ", "said nothing"),
    ("User:", "spoke for the assistant"),
    ("Assistant: How can I help?", "spoke for the assistant"),
    (LOOP, "says one thing over and over"),
]


@pytest.mark.parametrize(("said", "why"), BAD)
async def test_what_is_no_line_is_the_users_failure_and_is_kept_word_for_word(told, talk, said, why):
    with keep_unheard() as unheard, pytest.raises(BadLine, match=why) as caught:
        await ModelUser(told(said)).reply(SHOES, talk("A", "B"))
    assert isinstance(caught.value, UserFailed)
    assert "told at temperature 0.7" in str(caught.value)
    assert unheard == [said]


async def test_a_user_that_wants_to_leave_before_it_has_said_anything_has_failed(told):
    with pytest.raises(BadLine, match="before it has said anything"):
        await ModelUser(told("[DONE]")).opening(SHOES)


LINES = [
    ("  Where is it?\n", "Where is it?"),
    ("User: Where is it?", "Where is it?"),
    ("Where is it?\nAssistant: On the way.\nUser: Thanks", "Where is it?"),
    ("My agent: a friend", "My agent: a friend"),
    ("?", "?"),
]


@pytest.mark.parametrize(("said", "line"), LINES)
async def test_of_what_the_model_says_the_users_own_words_are_the_line(told, talk, said, line):
    assert line_of(said) == line
    with keep_unheard() as unheard:
        assert await ModelUser(told(said)).reply(SHOES, talk("A", "B")) == line
    assert unheard == ([said] if said.strip() != line else [])


def test_laughter_lists_and_long_lines_are_no_loops():
    assert loops(LOOP)
    assert loops("no" * 40)
    assert not loops("ha" * 10)
    assert not loops("no" * 39)
    assert not loops(
        "no" * 40 + " " + "I said it in so many words, one after the other, and nobody has ever listened to me."
    )
    assert not loops("-" * 85 + "".join(map(str, range(100))))


async def test_what_the_model_raises_reaches_the_rollout_as_the_users_failure(told):
    environment = ConversationEnvironment([SCRIPTED], user=ModelUser(told(ChatFailed("no answer"), "")))
    state = await environment.reset()
    with pytest.raises(UserFailed, match="ChatFailed: no answer"):
        await environment.step(state, "Hello")
    with pytest.raises(UserFailed, match=r"^the user .* said nothing"):
        await environment.step(state, "Hello")


async def test_an_environment_holds_a_conversation_with_it(told):
    environment = ConversationEnvironment([SHOES], user=ModelUser(told("Hello", "It pinches", "Bye [DONE]")))
    state = await environment.reset()
    assert await environment.get_initial_prompt() == "Hello"
    state, turn, _, done = await environment.step(state, "What is wrong?")
    assert (turn.content, done) == ("It pinches", False)
    state, turn, _, done = await environment.step(state, "Send them back.")
    assert (turn, done, state.status) == (None, True, EpisodeStatus.COMPLETED)
    assert [turn.content for turn in state.history] == ["Hello", "What is wrong?", "It pinches", "Send them back."]


def test_results_say_model_temperature_and_seed(told):
    user = ModelUser(told("x"), temperature=1, seed=3, max_turns=4)
    assert user.describe() == {
        "type": "model",
        "model": "told",
        "repeatable": False,
        "temperature": 1.0,
        "max_tokens": 128,
        "seed": 3,
        "done_marker": "[DONE]",
        "max_turns": 4,
    }
    assert ConversationEnvironment([SHOES], user=user).describe_user(SHOES) == user.describe()

    def rude(scenario, persona, marker):
        return "Be rude."

    assert ModelUser(told("x"), prompt=rude).describe()["prompt"].endswith("rude")


def test_wrong_settings_are_refused_together(told):
    with pytest.raises(ConfigError) as caught:
        ModelUser(told("x"), temperature=-1, max_tokens=0, seed=True, max_turns=0, done_marker=" ")
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == [
        "ModelUser: temperature",
        "ModelUser: max_tokens",
        "ModelUser: seed",
        "ModelUser: max_turns",
        "ModelUser: done_marker",
    ]
