import json

import pytest

from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.reward import CorrectnessReward, load_ground_truth
from stateset_agents.core.trajectory import ConversationTurn as Turn

FACTS = {"price": "$49", "warranty": "2 years", "delivery": "3 days", "colour": "green"}


def talk(*replies):
    return [turn for reply in replies for turn in (Turn("user", "And my order 77?"), Turn("assistant", reply))]


async def judge(*replies, asked=("price", "warranty"), facts=FACTS, reward=None, **context):
    context = {"facts": facts, "information_provided": list(asked), "scenario_id": "s", **context}
    return await (reward or CorrectnessReward()).evaluate(talk(*replies), context)


async def test_each_asked_fact_is_an_equal_share_whenever_it_is_stated():
    assert (await judge("It costs $49.", "You get 2 years.")).score == 1.0
    assert (await judge("Hello there.", "It costs $49, with 2 years of warranty.")).score == 1.0
    assert (await judge("It costs $49.", "It is good.")).score == 0.5
    assert (await judge("It is cheap.", "It is good.")).score == 0.0


async def test_an_unasked_fact_costs_a_tenth_each_time_it_is_stated():
    result = await judge("It costs $49 and is green.", "It has 2 years of warranty and is green.")
    assert result.score == pytest.approx(0.8)
    assert result.breakdown == {"provided": 1.0, "unasked": 2.0, "repeated": 0.0, "invented": 0.0}
    assert result.turn_rewards == pytest.approx([0.4, 0.4])


async def test_an_asked_fact_said_again_in_a_later_turn_costs_half_of_that():
    result = await judge("It costs $49.", "It has 2 years for $49.")
    assert result.score == pytest.approx(0.95)
    assert result.turn_rewards == pytest.approx([0.5, 0.45])


async def test_an_invented_number_costs_a_tenth_once():
    result = await judge("It costs $49, not $59.", "It has 2 years, and $59 is no price.")
    assert result.score == pytest.approx(0.9)
    assert result.breakdown["invented"] == 1.0


async def test_numbers_of_the_user_and_of_the_scenario_are_not_invented():
    scenario = {"topic": "Loop 500", "agent_context": "support: 24/7", "context": "A customer."}
    result = await judge("Order 77 of the Loop 500 costs $49, support is there 24/7.", "2 years.", scenario=scenario)
    assert result.breakdown["invented"] == 0.0


async def test_the_score_never_falls_below_zero_and_turn_rewards_follow():
    result = await judge("It is green and comes in 3 days.", "It is green and comes in 3 days.")
    assert (result.score, result.turn_rewards) == (0.0, [0.0, 0.0])


async def test_a_fact_inside_an_asked_fact_is_not_charged_as_unasked():
    facts = {"plan": "$49 a month", "price": "$49"}
    assert (await judge("It is $49 a month.", asked=["plan"], facts=facts)).score == 1.0


async def test_without_asked_topics_all_facts_are_asked():
    assert (await judge("It costs $49.", "It has 2 years.", asked=())).score == 0.5


async def test_topics_without_facts_are_not_judged():
    assert (await judge("It costs $49.", asked=["price", "features"])).score == 1.0


@pytest.mark.parametrize("context", [None, {}, {"facts": {}}, {"information_provided": ["pricing"]}])
async def test_an_episode_without_facts_and_ground_truth_is_unscored(context):
    result = await CorrectnessReward().evaluate(talk("It costs $49."), context)
    assert result.score is None
    assert "neither facts nor ground truth" in result.metadata["unscored"]


@pytest.mark.parametrize(
    ("truth", "score"),
    [
        ("$50", 1.0),
        ({"s": "$50"}, 1.0),
        ({"s": ["fifty euros", "$50"]}, 1.0),
        ({"s": {"price": "$50", "colour": "red"}}, 0.5),
        ({"another": "$50"}, 0.0),
    ],
)
async def test_ground_truth_given_to_the_reward_comes_before_the_scenario(truth, score):
    reward = CorrectnessReward(ground_truth=truth)
    assert (await judge("It costs $50.", reward=reward, ground_truth=["$60"])).score == pytest.approx(score)


async def test_ground_truth_of_the_scenario_comes_before_its_facts():
    assert (await judge("It costs $60.", ground_truth=("$60", "sixty"))).score == 1.0


async def test_ground_truth_is_read_from_a_file(tmp_path):
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"ground_truth": {"s": "Paris"}}), encoding="utf-8")
    reward = CorrectnessReward(0.2, ground_truth_file=file)
    assert (await judge("It is Paris.", reward=reward)).score == 1.0
    assert reward.to_config() == {"type": "correctness", "weight": 0.2, "ground_truth": {"s": "Paris"}}


def test_ground_truth_and_a_file_exclude_each_other():
    with pytest.raises(ConfigError, match="not both"):
        CorrectnessReward(ground_truth="a", ground_truth_file="b.json")


@pytest.mark.parametrize(
    "truth", [{}, {"s": 3}, {"s": []}, {"s": {}}, {"s": "..."}, {"s": ["a", 1]}, {"s": {"a": None}}, ["Paris"]]
)
def test_ground_truth_that_is_no_answer_is_refused(truth):
    with pytest.raises(ConfigError, match=r"ground_truth: (no answers|the answer for 's')"):
        CorrectnessReward(ground_truth=truth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n\n oops}", "line 3: not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "must be"),
        (b'{"truth": {}}', "must be"),
        (b'{"ground_truth": {}}', "no answers"),
        (b'{"ground_truth": {"a": 1, "b": "x", "c": []}}', "the answer for 'a' is 1.*\n.*the answer for 'c'"),
        (b'{"ground_truth": {"a": "x", "a": "y"}}', "the key 'a' appears twice"),
    ],
)
def test_a_malformed_ground_truth_file_is_named_with_what_is_wrong(tmp_path, content, message):
    file = tmp_path / "truth.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_ground_truth(file)
    assert "truth.json" in str(caught.value)


def test_a_missing_or_unreadable_ground_truth_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        load_ground_truth(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_ground_truth(tmp_path)


def test_a_run_without_anything_to_be_right_about_is_refused_before_it_starts():
    reward = CorrectnessReward()
    with pytest.raises(ConfigError, match="none of the 2 scenarios has facts"):
        reward.require([{"id": "a"}, {"id": "b", "success_criteria": {"information_provided": ["price"]}}])
    reward.require([{"id": "a"}, {"id": "b", "facts": {"price": "$1"}}])
    CorrectnessReward(ground_truth="yes").require([{"id": "a"}])


def test_scenarios_that_will_go_unscored_are_named_before_the_run():
    notes = CorrectnessReward().notices([{"id": "a"}, {"id": "b", "ground_truth": "Paris"}])
    assert len(notes) == 1
    assert "1 of 2 scenarios (first: 'a')" in notes[0]
    assert CorrectnessReward(ground_truth={"a": "x"}).notices([{"id": "a"}]) == []


def test_a_correctness_reward_without_ground_truth_has_none_in_its_config():
    assert CorrectnessReward().to_config() == {"type": "correctness", "weight": 1.0}
    assert CorrectnessReward(ground_truth="x").to_config()["ground_truth"] == "x"


def test_ground_truth_in_yaml_is_what_it_looks_like(tmp_path):
    file = tmp_path / "truth.yaml"
    file.write_text("ground_truth: {'012': 12:30, other: no}\n", encoding="utf-8")
    assert load_ground_truth(file) == {"012": "12:30", "other": "no"}
