import pytest

from stateset_agents.core.environment import (
    ConversationEnvironment,
    Environment,
    EnvironmentState,
    EpisodeStatus,
)
from stateset_agents.core.errors import DataError
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.core.users import ScriptedUser, User, UserFailed, in_words, keep_unheard, say_unheard

SCRIPT = [{"id": "a", "user_responses": ["Hi!", "How are you?", "Thanks!"]}]


async def say(environment, *answers, scenario=None):
    """Play a conversation by hand: what the user said, and the last state."""
    state = await environment.reset(scenario)
    said = [await environment.get_initial_prompt(scenario)]
    done = False
    for answer in answers:
        state, response, reward, done = await environment.step(state, answer)
        assert reward == 0.0
        if response is not None:
            said.append(response.content)
    return said, state, done


async def test_a_scripted_user_says_its_lines_in_order_and_is_done_when_the_last_is_answered():
    said, state, done = await say(ConversationEnvironment(SCRIPT), "one", "two")
    assert (said, state.status, done) == (["Hi!", "How are you?", "Thanks!"], EpisodeStatus.ONGOING, False)
    said, state, done = await say(ConversationEnvironment(SCRIPT), "one", "two", "three")
    assert (said, state.status, done) == (["Hi!", "How are you?", "Thanks!"], EpisodeStatus.COMPLETED, True)
    assert state.turn_count == 3


async def test_max_turns_bounds_assistant_turns_and_a_cut_is_a_timeout():
    said, state, done = await say(ConversationEnvironment(SCRIPT, max_turns=2), "one", "two")
    assert (said, state.status, done) == (["Hi!", "How are you?"], EpisodeStatus.TIMEOUT, True)
    _, state, _ = await say(ConversationEnvironment(SCRIPT, max_turns=3), "one", "two", "three")
    assert state.status is EpisodeStatus.COMPLETED


async def test_step_leaves_the_state_it_was_given_as_it_was():
    environment = ConversationEnvironment(SCRIPT)
    state = await environment.reset()
    before = state.copy()
    after, _, _, _ = await environment.step(state, ConversationTurn("assistant", "Hello"))
    again, _, _, _ = await environment.step(state, "Hello")
    assert state == before
    assert [turn.content for turn in after.history] == [turn.content for turn in again.history]
    assert [turn.content for turn in after.history] == ["Hi!", "Hello", "How are you?"]


def test_a_copied_state_shares_nothing():
    state = EnvironmentState("e", context={"seen": ["a"]})
    twin = state.copy()
    twin.context["seen"].append("b")
    twin.turn_count += 1
    assert (state.context, state.turn_count) == ({"seen": ["a"]}, 0)


async def test_a_state_knows_what_the_user_knows():
    scenario = {"id": "x", "topic": "billing", "initial_state": {"user_goal": "g"}, "user_responses": ["Hi"]}
    environment = ConversationEnvironment([scenario], persona="You are in a hurry.")
    state = await environment.reset()
    assert state.context == {
        "scenario_id": "x",
        "topic": "billing",
        "persona": "You are in a hurry.",
        "initial_state": {"user_goal": "g"},
    }
    state.context["initial_state"]["user_goal"] = "changed"
    assert (await environment.reset()).context["initial_state"] == {"user_goal": "g"}


async def test_an_episode_may_be_begun_on_a_mapping_an_object_or_the_first_scenario():
    environment = ConversationEnvironment([*SCRIPT, {"id": "b", "user_responses": ["Bye"]}])
    assert await environment.get_initial_prompt() == "Hi!"
    assert await environment.get_initial_prompt(environment.episode_scenarios()[1]) == "Bye"
    assert await environment.get_initial_prompt({"user_responses": ["Elsewhere"]}) == "Elsewhere"


async def test_a_state_from_nowhere_or_from_a_finished_conversation_is_refused():
    environment = ConversationEnvironment(SCRIPT, max_turns=1)
    with pytest.raises(ValueError, match="begin with `state = await environment"):
        await environment.step(EnvironmentState("e"), "Hello")
    _, state, _ = await say(environment, "Hello")
    with pytest.raises(ValueError, match=r"this conversation is over \(timeout\)"):
        await environment.step(state, "Hello?")


@pytest.mark.parametrize(
    ("scenarios", "max_turns", "message"),
    [
        ([], 5, "scenarios is empty"),
        ([{"id": "a"}], 5, r"scenarios\[0\] \(id 'a'\) has no user turns"),
        ([{"user_response": ["Hi"]}], 5, "did you mean 'user_responses'"),
        (SCRIPT, 0, "max_turns is 0; it must be a whole number"),
        (SCRIPT, True, "max_turns is True"),
    ],
)
def test_a_conversation_that_cannot_be_held_is_refused_at_once(scenarios, max_turns, message):
    with pytest.raises(DataError, match=message):
        ConversationEnvironment(scenarios, max_turns=max_turns)


def turns_of(*texts):
    return [ConversationTurn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("facts", "answer", "expected"),
    [
        ({"price": "$49 a month", "trial": "14 days"}, "It costs $49 per month, and the first 14 days are free.", True),
        ({"price": "$49 a month", "trial": "14 days"}, "It costs $490 a month, and the first 14 days are free.", False),
        ({"price": "$49 a month", "trial": "14 days"}, "It costs $49 a month.", False),
        ({}, "I know all about the price and the trial.", True),
        ({}, "I know all about the price.", False),
    ],
)
async def test_success_is_that_every_topic_was_provided(facts, answer, expected):
    scenario = {
        "facts": facts,
        "success_criteria": {"information_provided": ["price", "trial"]},
        "user_responses": ["?"],
    }
    environment = ConversationEnvironment([scenario])
    state = await environment.reset()
    assert environment.success(turns_of("What is $49 a month, price, trial, 14 days?", answer), state) is expected


async def test_without_a_criterion_success_is_not_stated():
    environment = ConversationEnvironment(SCRIPT)
    assert environment.success(turns_of("Hi!", "Hello"), await environment.reset()) is None
    assert environment.success([], EnvironmentState("e")) is None


async def test_rewards_are_told_what_the_contract_promises():
    scenario = Scenario.from_dict(
        {
            "id": "x",
            "facts": {"price": "$49"},
            "ground_truth": "$49",
            "success_criteria": {"information_provided": ["price"]},
            "metadata": {"expected_turns": 2},
            "user_responses": ["Hi"],
        }
    )
    environment = ConversationEnvironment([scenario])
    state = await environment.reset(scenario)
    state.context["completed_actions"] = ["greet"]
    context = environment.reward_context(state, scenario, [], Outcome.TRUNCATED)
    assert context == {
        "scenario": scenario.to_dict(),
        "scenario_id": "x",
        "state": {"scenario_id": "x", "completed_actions": ["greet"]},
        "facts": {"price": "$49"},
        "information_provided": ["price"],
        "ground_truth": "$49",
        "completed_actions": ["greet"],
        "required_actions": [],
        "expected_turns": 2,
        "outcome": "truncated",
    }


def test_what_a_scripted_user_cannot_use_is_listed_with_the_reason():
    scenario = {
        "initial_state": {"user_knowledge": "beginner"},
        "success_criteria": {"user_satisfaction": "high"},
        "user_responses": ["Hi"],
    }
    unused = ConversationEnvironment([scenario], persona="Be rude.").unused()
    assert [name for name, _ in unused] == [
        "persona",
        "success_criteria.user_satisfaction",
        "initial_state.user_knowledge",
    ]
    assert all("scripted user" in reason for _, reason in unused)
    assert ConversationEnvironment(SCRIPT).unused() == []
    assert ConversationEnvironment([scenario], persona="Be rude.", user=Parrot()).unused() == []


def test_a_keyword_criterion_is_announced_as_easy_to_fool():
    loose = {"id": "l", "success_criteria": {"information_provided": ["price"]}, "user_responses": ["Hi"]}
    (notice,) = ConversationEnvironment([loose]).notices()
    assert notice.startswith("1 of 1 scenarios (first: 'l') ask for information_provided without facts")
    assert ConversationEnvironment([{**loose, "facts": {"price": "$49"}}]).notices() == []


class Parrot:
    """A user that is no script: repeats what it hears, twice."""

    async def opening(self, scenario, persona=None):
        return f"I am {persona}"

    async def reply(self, scenario, turns, persona=None):
        return turns[-1].content if len(turns) < 4 else None


async def test_any_user_can_take_the_place_of_the_script():
    assert isinstance(Parrot(), User)
    environment = ConversationEnvironment([{"id": "no script"}], persona="a parrot", user=Parrot())
    said, state, done = await say(environment, "Hello", "Stop it")
    assert (said, state.status, done) == (["I am a parrot", "Hello"], EpisodeStatus.COMPLETED, True)


class Silent:
    async def opening(self, scenario, persona=None):
        raise OSError("no line")

    async def reply(self, scenario, turns, persona=None):
        raise OSError("hung up")


async def test_a_user_that_fails_is_named_as_the_one_who_failed():
    environment = ConversationEnvironment([{"id": "a"}], user=Silent())
    with pytest.raises(UserFailed, match="OSError: no line"):
        await environment.get_initial_prompt()
    state = EnvironmentState("e", scenario=Scenario("a"))
    with pytest.raises(UserFailed, match="OSError: hung up"):
        await environment.step(state, "Hello")


async def test_a_script_without_lines_is_bad_data():
    with pytest.raises(DataError, match="scenario 'a' has no user_responses"):
        await ScriptedUser().opening(Scenario("a"))


class Bare(Environment):
    """Skips `super().__init__()` and defines `step` alone."""

    def __init__(self, simulator):
        self.simulator = simulator

    async def step(self, state, action):
        return self.simulator(state, action)


async def test_an_environment_that_defines_step_alone_works():
    environment = Bare(lambda state, action: (state, None, 1.0, True))
    assert [s.id for s in environment.episode_scenarios()] == ["episode"]
    state = await environment.reset()
    assert (state.status, state.turn_count, environment.max_turns) == (EpisodeStatus.ONGOING, 0, 10)
    assert await environment.get_initial_prompt() == "Hello!"
    assert await environment.get_initial_prompt({"user_responses": ["Hi"]}) == "Hi"
    assert environment.unused() == environment.notices() == []
    assert environment.success([], state) is None


@pytest.mark.parametrize(("status", "success"), [("completed", True), ("failed", False), ("timeout", None)])
def test_the_status_of_a_custom_environment_is_its_criterion(status, success):
    assert Bare(None).success([], EnvironmentState("e", status=EpisodeStatus(status))) is success


def test_scenarios_of_a_custom_environment_may_have_keys_of_their_own():
    environment = Bare(None)
    environment.scenarios = [{"maze": 3}]
    (scenario,) = environment.episode_scenarios()
    assert scenario["maze"] == 3


def test_an_environment_without_step_cannot_be_made():
    with pytest.raises(TypeError, match="step"):
        type("Empty", (Environment,), {})()


def test_results_name_the_user_whatever_it_is():
    assert ConversationEnvironment(SCRIPT).describe_user() == {"type": "scripted"}
    assert ConversationEnvironment([{"id": "a"}], user=Parrot()).describe_user(Scenario("a")) == {"type": "Parrot"}
    assert ConversationEnvironment(SCRIPT).notices() == []
    assert ConversationEnvironment([{"id": "a"}], user=Parrot()).notices() == ["The user is played: Parrot."]
    played = {"type": "model", "model": "tiny", "temperature": 0.7, "seed": 0}
    assert in_words(played) == "tiny at temperature 0.7, seed 0"
    mixture = {"type": "mixture", "seed": 4, "users": [{"type": "scripted", "share": 0.7}, {**played, "share": 0.3}]}
    assert in_words(mixture) == ("70% scripted and 30% tiny at temperature 0.7, seed 0 (chosen by scenario, seed 4)")


def test_what_nobody_heard_is_kept_for_who_collects_it():
    say_unheard("lost")
    with keep_unheard() as outer:
        say_unheard("one")
        with keep_unheard() as inner:
            say_unheard("two")
        say_unheard("three")
    assert (outer, inner) == (["one", "three"], ["two"])


async def test_a_failure_that_the_user_names_itself_keeps_its_words():
    class Hoarse(Silent):
        async def opening(self, scenario, persona=None):
            raise UserFailed("lost its voice")

        async def reply(self, scenario, turns, persona=None):
            raise UserFailed("lost its voice")

    environment = ConversationEnvironment([{"id": "a"}], user=Hoarse())
    with pytest.raises(UserFailed, match=r"^lost its voice$"):
        await environment.get_initial_prompt()
    with pytest.raises(UserFailed, match=r"^lost its voice$"):
        await environment.step(EnvironmentState("e", scenario=Scenario("a")), "Hello")
