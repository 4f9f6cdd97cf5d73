"""The rubric: points for what can be pointed at."""

import json
import sys

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import RubricReward, build_rewards
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult
from stateset_agents.core.trajectory import ConversationTurn as Turn

SAID = ["I am sorry, may I have the order number?", "Order 7 gets a refund of 49 dollars."]
CONTEXT = {"scenario_id": "s", "facts": {"amount": "$49"}}


def talk(*replies):
    return [turn for reply in replies for turn in (Turn("user", "Hm?"), Turn("assistant", reply))]


async def met(check, *replies, context=CONTEXT):
    return (await RubricReward([check]).evaluate(talk(*(replies or SAID)), context)).score


CHECKS = [
    ({"contains": "Refund"}, True),
    ({"contains": "a refund of"}, True),
    ({"contains": "refunds"}, False),
    ({"contains": "fund"}, False),
    ({"contains": "refund a"}, False),
    ({"contains": ["voucher", "refund"]}, True),
    ({"contains": "refund", "in": "every"}, False),
    ({"contains": "refund", "in": "first"}, False),
    ({"contains": "refund", "in": "last"}, True),
    ({"lacks": "voucher"}, True),
    ({"lacks": ["voucher", "sorry"]}, False),
    ({"lacks": "sorry", "in": "last"}, True),
    ({"lacks": "sorry", "in": "any"}, True),
    ({"states": "$49"}, True),
    ({"states": ["$50", "$49"]}, True),
    ({"states": "$4"}, False),
    ({"states_topic": "amount"}, True),
    ({"max_words": 9}, True),
    ({"max_words": 8}, False),
    ({"max_words": 8, "in": "last"}, True),
    ({"min_words": 8}, True),
    ({"min_words": 9}, False),
    ({"min_words": 9, "in": "any"}, True),
    ({"asks_question": True}, True),
    ({"asks_question": True, "in": "last"}, False),
    ({"predicate": lambda turns, context: len(turns) == 4 and context["scenario_id"] == "s"}, True),
    ({"predicate": lambda turns, context: False}, False),
]


@pytest.mark.parametrize(("check", "expected"), CHECKS, ids=lambda value: str(value)[:40])
async def test_a_check_is_met_by_what_was_said(check, expected):
    """SAID has 9 and 8 words. Mutation: substrings, or `any` where `every` is meant."""
    assert await met(check) == float(expected)


async def test_points_are_shares_of_all_points_and_each_check_is_in_the_breakdown():
    checks = [{"contains": "refund", "points": 3}, {"contains": "voucher"}]
    checks += [{"max_words": 3, "points": 0.5, "name": "short"}, {"contains": "voucher", "points": 1.5}]
    result = await RubricReward(checks).evaluate(talk(*SAID))
    assert result.score == 3 / 6
    assert result.breakdown == {
        "contains: refund": 1.0,
        "contains: voucher": 0.0,
        "short": 0.0,
        "contains: voucher #2": 0.0,
    }


@pytest.mark.parametrize("replies", [[], [""], ["...", " "]])
async def test_silence_earns_nothing_from_rules_that_forbid_words(replies):
    """Mutation: an empty reply lacks everything and is short."""
    reward = RubricReward([{"lacks": "sorry"}, {"max_words": 10}, {"predicate": lambda turns, context: True}])
    assert (await reward.evaluate(talk(*replies))).score == 0.0


async def test_a_tool_was_called_if_the_call_gave_a_value():
    reward = RubricReward([{"calls_tool": "refund"}])

    def turns(name, error=None):
        call = Turn("assistant", "", tool_calls=(ToolCall(name),))
        return [
            Turn("user", "Go"),
            call,
            Turn("tool", "x", tool_result=ToolResult(name, error)),
            Turn("assistant", "Ok."),
        ]

    assert (await reward.evaluate(turns("refund"))).score == 1.0
    assert (await reward.evaluate(turns("refund", ToolError.FAILED))).score == 0.0
    assert (await reward.evaluate(turns("look_up"))).score == 0.0
    assert (await reward.evaluate(talk("I called refund."))).score == 0.0


async def test_a_question_has_words_before_its_mark():
    assert await met({"asks_question": True}, "? ?? ...") == 0.0
    assert await met({"asks_question": True}, "Which order\uff1f") == 1.0


async def test_a_scenario_without_the_fact_is_unscored():
    reward = RubricReward([{"states_topic": "amount"}, {"max_words": 50}])
    result = await reward.evaluate(talk(*SAID), {"scenario_id": "b"})
    assert (result.score, result.metadata) == (None, {"unscored": "scenario 'b' has no fact 'amount'"})
    with_fact, without = {"id": "a", "facts": {"amount": "$49"}}, {"id": "b"}
    reward.require([with_fact, without])
    assert "1 of 2 scenarios (first: 'b')" in reward.notices([with_fact, without])[0]
    assert reward.notices([with_fact]) == []
    with pytest.raises(ConfigError, match="the fact 'amount', which no scenario has"):
        reward.require([without])


async def test_a_predicate_may_be_async_and_must_say_yes_or_no():
    async def slow(turns, context):
        return True

    assert await met({"predicate": slow}) == 1.0
    with pytest.raises(TypeError, match=r"returned 0\.5; it must return True or False"):
        await met({"predicate": lambda turns, context: 0.5})


@pytest.mark.parametrize("predicate", [lambda: True, lambda turns: True, lambda turns, context, more: True, dict, 5.0])
def test_a_predicate_that_cannot_be_called_is_refused_with_its_place(predicate):
    with pytest.raises(ConfigError, match=r"^checks\[1\]\.predicate is "):
        RubricReward([{"max_words": 3}, {"predicate": predicate}])


async def test_a_predicate_is_imported_from_beside_the_config_and_found_again(tmp_path):
    (tmp_path / "my_rules.py").write_text("def polite(turns, context):\n    return 'sorry' in turns[1].content\n")
    search = list(sys.path)
    try:
        entry = {"type": "rubric", "checks": [{"predicate": "my_rules.polite"}, {"max_words": 3}], "weight": 2.0}
        reward = build_rewards([entry], base_dir=tmp_path)
        assert (await reward.evaluate(talk(*SAID))).score == 1.0
        (again,) = json.loads(json.dumps(reward.to_config()["functions"]))
        assert again == entry
        assert "functions" in build_rewards([again], base_dir=tmp_path).to_config()
    finally:
        sys.path[:] = search
        sys.modules.pop("my_rules", None)


def long_enough(turns, context):
    return True


def test_a_predicate_given_as_a_function_is_named_and_one_without_a_name_is_not_rebuildable():
    named = RubricReward([{"predicate": long_enough}]).to_config()
    assert named["checks"] == [{"predicate": f"{__name__}.long_enough"}]
    unnamed = RubricReward([{"predicate": lambda turns, context: True}]).to_config()
    assert json.loads(json.dumps(unnamed))["rebuildable"] is False
    with pytest.raises(ConfigError, match="cannot be made again from its name alone"):
        build_rewards([unnamed])


def test_every_problem_of_every_check_is_told():
    with pytest.raises(ConfigError) as caught:
        RubricReward(
            [
                "refund",
                {"contians": "refund"},
                {"points": 1},
                {"contains": "a", "lacks": "b"},
                {"contains": "..."},
                {"contains": []},
                {"contains": "a", "points": 0},
                {"contains": "a", "points": "much"},
                {"contains": "a", "in": "middle"},
                {"max_words": 0},
                {"max_words": True},
                {"asks_question": False},
                {"calls_tool": 3},
                {"calls_tool": "f", "in": "last"},
                {"predicate": "nowhere"},
                {"predicate": "json.decoder"},
                {"matches": "(a+)+$"},
            ]
        )
    starts = [
        "checks[0] is 'refund'",
        "checks[1] has the unknown key 'contians'; did you mean 'contains'?",
        "checks[2] has 0 rules",
        "checks[3] has 2 rules",
        "checks[4].contains is '...'; it must be a text with a word",
        "checks[5].contains is []",
        "checks[6].points is 0; it must be above 0",
        "points of reward 'checks[7]' is 'much'",
        "checks[8].in is 'middle'; it must be one of any, every, last, first",
        "checks[9].max_words is 0",
        "checks[10].max_words is True",
        "checks[11].asks_question is False",
        "checks[12].calls_tool is 3",
        "checks[13].in is for rules about replies",
        "checks[14].predicate is 'nowhere'; it must be a dotted path",
        "checks[15].predicate is 'json.decoder', which is no function",
        "checks[16] has the unknown key 'matches'",
    ]
    assert [problem[: len(start)] for problem, start in zip(caught.value.problems, starts, strict=True)] == starts
    for nothing in ([], "contains", {"contains": "a"}):
        with pytest.raises(ConfigError, match="must be a list of at least one check"):
            RubricReward(nothing)
