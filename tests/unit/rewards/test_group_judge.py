"""All conversations of a scenario before one judge."""

import json

import pytest

from stateset_agents.core.reward import build_rewards
from stateset_agents.core.rewards.group import GroupReward
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.rewards.group_judge import GroupJudgeReward
from stateset_agents.rewards.judging import JudgeFailed


def talk(*texts):
    return [ConversationTurn(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


def evidence(model, call=0):
    _, *lines, _ = model.asked[call][1]["content"].split("\n")
    return [json.loads(line) for line in lines]


async def test_what_the_conversations_share_at_their_beginning_is_shown_once(scripted):
    model = scripted('{"scores": {"c1": 0.25, "c2": 1, "c3": 0}}')
    begun = ["Hi", "Hello", "The price?"]
    group = [talk(*begun, "12."), talk(*begun, "13.", "Sure?", "Yes."), talk("Hi", "Hello")]
    assert await GroupJudgeReward(model).compare(group) == [0.25, 1.0, 0.0]
    assert evidence(model) == [
        {"conversation": "all of them", "role": "user", "content": "Hi"},
        {"conversation": "all of them", "role": "assistant", "content": "Hello"},
        {"conversation": "c1", "role": "user", "content": "The price?"},
        {"conversation": "c1", "role": "assistant", "content": "12."},
        {"conversation": "c2", "role": "user", "content": "The price?"},
        {"conversation": "c2", "role": "assistant", "content": "13."},
        {"conversation": "c2", "role": "user", "content": "Sure?"},
        {"conversation": "c2", "role": "assistant", "content": "Yes."},
        {"conversation": "c3", "ends": "here"},
    ]
    assert "You compare 3 conversations" in model.asked[0][0]["content"]
    assert '{"scores": {"c1": a number, "c2": a number, "c3": a number}}' in model.asked[0][0]["content"]


async def test_a_score_finds_its_conversation_whatever_the_order(scripted):
    """The judge likes long replies, and is asked in an order of the key's: each gets its own length's score."""

    class Measuring(scripted):
        async def complete(self, messages, **more):
            await super().complete(messages, **more)
            own = [line for line in evidence(self, -1) if line["role"] == "assistant"]
            return json.dumps({"scores": {line["conversation"]: len(line["content"]) / 10 for line in own}})

    group = [talk("Hi", "a" * length) for length in (1, 2, 3, 4, 5)]
    orders = set()
    for key in "abcd":
        model = Measuring("")
        results = await GroupJudgeReward(model).evaluate_group(group, None, key)
        assert [result.score for result in results] == [0.1, 0.2, 0.3, 0.4, 0.5]
        orders.add(tuple(len(line["content"]) for line in evidence(model) if line["role"] == "assistant"))
    assert len(orders) > 1


@pytest.mark.parametrize(
    "answer",
    [
        '{"scores": {"c1": 0.5}}',
        '{"scores": {"c1": 0.5, "c2": 0.5, "c3": 0.5}}',
        '{"scores": {"c1": 0.5, "c3": 0.5}}',
        '{"scores": {"c1": 0.5, "c2": 0.5, "c1": 0.7}}',
        '{"scores": {"c1": 0.5, "c2": 1.01}}',
        '{"scores": {"c1": 0.5, "c2": "0.5"}}',
        '{"scores": {"c1": 0.5, "c2": true}}',
        '{"scores": [0.5, 0.5]}',
        '{"c1": 0.5, "c2": 0.5}',
        "c1 > c2",
    ],
)
async def test_every_conversation_is_judged_by_its_name_or_none_is(scripted, answer):
    model = scripted(answer)
    group = [talk("Hi", "A"), talk("Hi", "B")]
    with pytest.raises(JudgeFailed, match="asked twice"):
        await GroupJudgeReward(model).compare(group)
    assert len(model.asked) == 2
    model = scripted(answer, '{"scores": {"c2": 0.75, "c1": 0.5}}')
    assert await GroupJudgeReward(model).compare(group) == [0.5, 0.75]


async def test_conversations_that_are_alike_are_shown_once_and_get_the_same_score(scripted):
    model = scripted('{"scores": {"c1": 0.5, "c2": 0.75}}')
    group = [talk("Hi", "A"), talk("Hi", "B"), talk("Hi", "A"), talk("Hi", ""), talk("Hi", "A")]
    assert await GroupJudgeReward(model).compare(group) == [0.5, 0.75, 0.5, 0.0, 0.5]
    assert [line.get("content") for line in evidence(model)] == ["Hi", "A", "B"]


async def test_a_group_in_which_nobody_says_a_word_is_not_asked_about(scripted):
    model = scripted("{}")
    assert await GroupJudgeReward(model).compare([talk("Hi"), talk("Hi", " ")]) == [0.0, 0.0]
    assert not model.asked


async def test_the_same_group_is_asked_about_once(scripted):
    model = scripted('{"scores": {"c1": 0.5, "c2": 0.75}}')
    reward = GroupJudgeReward(model)
    group = [talk("Hi", "A"), talk("Hi", "B")]
    assert await reward.compare(group) == await reward.compare(group)
    assert len(model.asked) == 1


def test_an_entry_makes_the_judge_again_and_it_stands_alone():
    entry = {"type": "group_judge", "base_url": "http://127.0.0.1:9/v1", "model": "m", "rubric": "Be kind."}
    reward = build_rewards([entry])
    assert isinstance(reward, GroupJudgeReward)
    assert isinstance(reward, GroupReward)
    assert reward.to_config() == {**entry, "weight": 1.0, "temperature": 0.0, "max_tokens": 1024}
    assert build_rewards([reward.to_config()]).to_config() == reward.to_config()
    compares, judges, *_ = reward.notices([])
    assert "its mean does not tell how good they are" in compares
    assert "m at http://127.0.0.1:9/v1 judges" in judges
    assert reward.attainable is None
