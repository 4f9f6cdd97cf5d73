"""Real conversations of a tiny agent with a tiny user."""

import json

import pytest

from stateset_agents.agents import AgentConfig, LocalChat, MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.users import ScriptedUser
from stateset_agents.engines.chat_model import ChatFailed
from stateset_agents.environments import MixedUser, ModelUser
from stateset_agents.evaluation import evaluate
from stateset_agents.rollouts import RolloutCounts, collect_groups

SCENARIOS = [Scenario("opens", ("Where is my order?",)), Scenario("silent", topic="a refund")]


@pytest.fixture(scope="module")
def agent():
    return MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu", temperature=1.0, max_new_tokens=6))


def user(**settings):
    model = LocalChat("tiny", dtype="float32", device="cpu")
    return ModelUser(model, **{"temperature": 1.0, "max_tokens": 6, **settings})


async def play(agent, user, key="k", **options):
    environment = ConversationEnvironment(SCENARIOS, max_turns=3, user=user, persona="Ada")
    return await collect_groups(agent, environment, SCENARIOS, None, group_size=4, key=key, **options)


def texts(groups):
    return {
        episode.key: [(turn.role, turn.content) for turn in episode.turns]
        for group in groups
        for episode in (*group.trajectories, *group.failures)
    }


async def test_conversations_are_the_same_alone_and_all_in_flight_at_once(agent):
    together = texts(await play(agent, user()))
    assert texts(await play(agent, user(), max_concurrent=1)) == together
    assert len(together) == 8
    assert all([role for role, _ in turns] == ["user", "assistant"] * 3 for turns in together.values())
    openings = {key.split("/")[1]: turns[0] for key, turns in together.items()}
    assert all(turns[0] == openings[key.split("/")[1]] for key, turns in together.items())
    assert openings["opens"] == ("user", "Where is my order?")
    other = texts(await play(agent, user(seed=1)))
    assert all(other[key][:2] == together[key][:2] for key in other if "opens" in key)
    assert all(other[key][2] != together[key][2] for key in other)


async def test_only_the_agents_words_are_trained(agent):
    for group in await play(agent, user()):
        for episode in group.trajectories:
            (row,) = episode.rows
            sampled = [token for turn in episode.assistant_turns for token in turn.span.ids]
            assert [token for token, mask in zip(row.ids, row.mask, strict=True) if mask] == sampled


async def test_each_result_says_who_the_user_was(agent, tmp_path):
    mixed = MixedUser([(1, ScriptedUser()), (1, user(seed=7))], seed=2)
    assert [type(mixed.chosen(scenario)).__name__ for scenario in SCENARIOS] == ["ScriptedUser", "ModelUser"]
    environment = ConversationEnvironment(SCENARIOS, max_turns=2, user=mixed)
    result = await evaluate(agent, environment, SCENARIOS, None, samples=1)
    data = json.loads(json.dumps(result.to_dict(episodes=True)))
    played = {
        "type": "model",
        "model": "tiny",
        "kind": "local",
        "repeatable": True,
        "temperature": 1.0,
        "max_tokens": 6,
        "seed": 7,
        "done_marker": "[DONE]",
        "share": 0.5,
    }
    scripted = {"type": "scripted", "share": 0.5}
    assert data["user"] == {"type": "mixture", "seed": 2, "users": [scripted, played]}
    assert [episode["user"] for episode in data["episodes"]] == [scripted, played]
    plain = ConversationEnvironment([SCENARIOS[0]])
    data = (await evaluate(agent, plain, [SCENARIOS[0]], None)).to_dict(episodes=True)
    assert data["user"] == {"type": "scripted"}
    assert "user" not in data["episodes"][0]


class Moody:
    """Fails in every second answer to an agent, and says good bye in every third."""

    calls = 0

    async def complete(self, messages, **request):
        self.calls += 1
        if self.calls % 2 == 0:
            raise ChatFailed("429")
        return "Bye [DONE]" if self.calls % 3 == 0 else "more"

    def describe(self):
        return {"model": "moody", "repeatable": False}


async def test_a_user_that_fails_is_counted_as_the_user_and_what_nobody_heard_is_on_record(agent):
    (group,) = (await play(agent, ModelUser(Moody()), max_concurrent=1))[:1]
    # calls: more, fail | bye | fail | more, fail
    assert [(e.key, e.outcome) for e in group.failures] == [(f"k/opens/{n}", Outcome.USER) for n in (0, 2, 3)]
    assert all(episode.error.startswith("step: ChatFailed: 429 (") for episode in group.failures)
    (left,) = group.trajectories
    assert (left.key, left.outcome, left.length) == ("k/opens/1", Outcome.OK, 1)
    assert left.to_dict()["user"]["unheard"] == ["Bye [DONE]"]
    assert left.turns[-1].role == "assistant"
    assert "unheard" not in group.failures[0].to_dict()["user"]
    assert RolloutCounts.of([group]).failures == {Outcome.USER: 3}


async def test_an_environment_that_cannot_say_who_its_user_is_has_failed_itself(agent):
    class Shy(ConversationEnvironment):
        def describe_user(self, scenario=None):
            raise KeyError("who?")

    environment = Shy(SCENARIOS, user=user())
    (group,) = await collect_groups(agent, environment, SCENARIOS[:1], None, group_size=2, key="k")
    assert [episode.outcome for episode in group.failures] == [Outcome.ENVIRONMENT] * 2
    assert all("describe_user: KeyError: 'who?'" in episode.error for episode in group.failures)
