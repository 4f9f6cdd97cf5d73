"""Exact and numeric match: one right answer, and no reward for naming many."""

import time
from decimal import Decimal

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import ExactMatchReward, NumericMatchReward
from stateset_agents.core.rewards.numeric_match import numbers
from stateset_agents.core.trajectory import ConversationTurn as Turn


async def score(reward, *replies, context=None):
    turns = [turn for reply in replies for turn in (Turn("user", "Well?"), Turn("assistant", reply))]
    return (await reward.evaluate(turns, context or {})).score


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Paris", True),
        ("  **paris.**\n", True),
        ("\u201cPARIS\u201d!", True),
        ("\uff30aris", True),
        ("The answer is Paris", False),
        ("Paris, France", False),
        ("Paris or Lyon", False),
        ("Pari", False),
        ("Par is", False),
        ("", False),
        ("...", False),
    ],
)
async def test_an_exact_match_is_the_answer_and_nothing_else(reply, right):
    assert await score(ExactMatchReward(ground_truth="Paris"), reply) == float(right)


async def test_signs_that_mean_something_are_compared():
    """Mutation: all punctuation dropped."""
    assert await score(ExactMatchReward(ground_truth="-5"), "5") == 0.0
    assert await score(ExactMatchReward(ground_truth="-5"), "\u22125.") == 1.0
    assert await score(ExactMatchReward(ground_truth="a/b"), "ab") == 0.0
    assert await score(ExactMatchReward(ground_truth="C++"), "C") == 0.0


async def test_only_the_last_reply_is_judged():
    """Mutation: any reply."""
    reward = ExactMatchReward(ground_truth="Paris")
    assert await score(reward, "Lyon", "Paris") == 1.0
    assert await score(reward, "Paris", "Lyon") == 0.0


async def test_what_follows_the_last_marker_is_judged():
    reward = ExactMatchReward(ground_truth="Paris", marker="Answer:")
    assert await score(reward, "France. Its capital... Answer: Paris.") == 1.0
    assert await score(reward, "Answer: Lyon. Answer: Paris") == 1.0
    assert await score(reward, "Answer: Paris. Answer: Lyon") == 0.0
    assert await score(reward, "Answer: Paris or Lyon") == 0.0
    assert await score(reward, "Paris") == 0.0


async def test_the_answer_is_the_scenarios_own_unless_one_was_given_for_it(tmp_path):
    file = tmp_path / "truth.json"
    file.write_text('{"ground_truth": {"a": ["Paris", "City of Light"]}}', encoding="utf-8")
    reward = ExactMatchReward(ground_truth_file=file)
    assert await score(reward, "city of light", context={"scenario_id": "a", "ground_truth": "Lyon"}) == 1.0
    assert await score(reward, "Lyon", context={"scenario_id": "b", "ground_truth": "Lyon"}) == 1.0
    assert await score(reward, "Lyon", context={"scenario_id": "b"}) is None
    assert await score(reward, "Lyon", context={"scenario_id": "b", "ground_truth": {"x": "Lyon"}}) is None
    assert reward.to_config()["ground_truth"] == {"a": ["Paris", "City of Light"]}


async def test_the_last_reply_earns_and_the_others_nothing():
    turns = [Turn("user", "?"), Turn("assistant", "Hm."), Turn("user", "?"), Turn("assistant", "Paris")]
    assert (await ExactMatchReward(ground_truth="Paris").evaluate(turns)).turn_rewards == [0.0, 1.0]
    assert (await ExactMatchReward(ground_truth="Paris").evaluate([])).score == 0.0


def test_scenarios_without_an_answer_are_refused_or_named():
    some, none = {"id": "a", "ground_truth": "7 apples"}, {"id": "b"}
    words = {"id": "c", "ground_truth": "seven"}
    for reward in (ExactMatchReward(), NumericMatchReward()):
        with pytest.raises(ConfigError, match="none of the 1 scenarios has a ground truth that fits it"):
            reward.require([none])
        reward.require([some, none])
        assert "1 of 2 scenarios (first: 'b')" in reward.notices([some, none])[0]
        assert reward.notices([some]) == []
    assert ExactMatchReward().notices([words]) == []
    assert "first: 'c'" in NumericMatchReward().notices([some, words])[0]
    NumericMatchReward(ground_truth={"b": 3}).require([none])


def parsed(text):
    return [(number.value, number.unit) for number in numbers(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("49", [("49", "")]),
        ("$49.50", [("49.50", "$")]),
        ("49 dollars", [("49", "$")]),
        ("\u20ac 1.234.567,5", [("1234567.5", "\u20ac")]),
        ("1,234,567.5", [("1234567.5", "")]),
        ("1\u202f000 and 2'000", [("1000", ""), ("2000", "")]),
        ("3,14", [("3.14", "")]),
        ("1,5", [("1.5", "")]),
        ("-5, \u22126, +7, -$8, $-9", [("-5", ""), ("-6", ""), ("7", ""), ("-8", "$"), ("-9", "$")]),
        ("50% and 60 percent", [("50", "%"), ("60", "%")]),
        ("2 million dollars", [("2000000", "$")]),
        ("5e3 or 5E-1", [("5000", ""), ("0.5", "")]),
        ("1/4", [("0.25", "")]),
        ("1/0", [("1", ""), ("0", "")]),
        ("3-5 days", [("3", ""), ("5", "")]),
        ("2024-05-01", [("2024", ""), ("5", ""), ("1", "")]),
        ("3:30", [("3", ""), ("30", "")]),
        ("5kg, 3rd", [("5", ""), ("3", "")]),
        ("HX49 router", []),
        ("- 5 apples", [("5", "")]),
        ("\\boxed{42}", [("42", "")]),
        ("seven", []),
        ("1/" + "9" * 5000, []),
        ("\u0663", [("3", "")]),
    ],
)
def test_numbers_are_read_as_people_write_them(text, expected):
    assert parsed(text) == [(Decimal(value), unit) for value, unit in expected]


LAST = {
    "The price is $49.": True,
    "It costs 49 dollars a month.": True,
    "49": True,
    "**49**": True,
    "49.00": True,
    "First 12, then 37.\nSo 12 + 37 = 49.": True,
    "12 + 37 = 49": True,
    "It is 50. No, it is 49. Glad to help!": True,
    "1. Add them.\n2. The sum is 49.": True,
    "49, that is $49.": True,
    "It is 48 or 49.": False,
    "It is 49 or 48.": False,
    "It is $49 or 48.": False,
    "48, 49, 50": False,
    "47 48 49 50 51": False,
    "It is 49. Or 50.": False,
    "Somewhere in 40-49.": False,
    "\u20ac49": False,
    "49%": False,
    "-49": False,
    "490": False,
    "4 9": False,
    "49.5": False,
    "forty-nine": False,
    "x49": False,
    "": False,
    "49 = 7 * 7": False,
}


@pytest.mark.parametrize(("reply", "right"), LAST.items())
async def test_the_last_number_is_the_answer_and_hedging_is_none(reply, right):
    """Mutation: any number of the reply, or the last of several."""
    assert await score(NumericMatchReward(ground_truth="$49"), reply) == float(right)


@pytest.mark.parametrize(("reply", "right"), [("It is 49.", True), ("12 + 37 = 49", False), ("49! 49!", True)])
async def test_with_only_the_whole_reply_must_hold_one_number(reply, right):
    assert await score(NumericMatchReward(ground_truth=49, number="only"), reply) == float(right)


@pytest.mark.parametrize(
    ("truth", "reply", "right"),
    [
        ("50%", "50%", True),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50%", "5%", False),
        ("0.5", "50%", True),
        ("0.5", "50", False),
        ("50", "50%", False),
        ("$1,000", "1000 euros", False),
        ("$1,000", "1000 dollars", True),
        ("1000", "$1 thousand", True),
    ],
)
async def test_percent_and_currency(truth, reply, right):
    assert await score(NumericMatchReward(ground_truth=truth), reply) == float(right)


@pytest.mark.parametrize(
    ("options", "reply", "right"),
    [
        ({}, "3.15", False),
        ({"tolerance": 0.01}, "3.15", True),
        ({"tolerance": 0.3}, "3.44", True),  # as a binary fraction 0.3 is a little less
        ({"tolerance": 0.01}, "3.1501", False),
        ({"relative_tolerance": 0.1}, "3.454", True),
        ({"relative_tolerance": 0.1}, "3.455", False),
        ({"tolerance": 0.1, "relative_tolerance": 0.1}, "2.826", True),
    ],
)
async def test_a_tolerance_is_kept_to_the_last_digit(options, reply, right):
    assert await score(NumericMatchReward(ground_truth=3.14, **options), reply) == float(right)


async def test_a_marker_frees_what_stands_before_it():
    reward = NumericMatchReward(ground_truth="49", marker="####")
    assert await score(reward, "2 x 20 = 40, and 9 more.\n#### 49") == 1.0
    assert await score(reward, "#### 48 49") == 0.0
    assert await score(reward, "49") == 0.0


@pytest.mark.parametrize("reply", ["9" * 200_000, "1," * 100_000, "-" * 200_000, "1 " * 100_000, "$ " * 100_000 + "e5"])
async def test_endless_replies_take_no_time_and_win_nothing(reply):
    begun = time.perf_counter()
    assert await score(NumericMatchReward(ground_truth="49"), reply) == 0.0
    assert await score(NumericMatchReward(ground_truth="49"), reply + ". =" * 1000) == 0.0
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NumericMatchReward(tolerance=-1), "tolerance is -1"),
        (lambda: NumericMatchReward(relative_tolerance=float("nan")), "relative_tolerance is nan"),
        (lambda: NumericMatchReward(tolerance=True), "tolerance is True"),
        (lambda: NumericMatchReward(number="first"), "number is 'first'"),
        (lambda: ExactMatchReward(marker=" "), "marker is ' '"),
        (lambda: ExactMatchReward(ground_truth="a", ground_truth_file="b"), "not both"),
        (lambda: ExactMatchReward(ground_truth=3), "no answers"),
        (lambda: NumericMatchReward(ground_truth=True), "no answers"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
