import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateset_agents.core.facts import (
    fact_tokens,
    figures,
    implies,
    provided_topics,
    stated_topics,
    states_fact,
    stem,
    unmatchable_facts,
)
from stateset_agents.core.trajectory import ConversationTurn


def said(*texts: str) -> list[ConversationTurn]:
    """The user asks for $1 each time; the assistant says `texts`."""
    return [turn for text in texts for turn in (ConversationTurn("user", "$1?"), ConversationTurn("assistant", text))]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("It costs $49 a month.", "$49 a month"),
        ("It costs $49 per month.", "$49 a month"),
        ("IT COSTS $49 EACH MONTH", "$49 a month"),
        ("It is $49/month", "$49 a month"),
        ("That is $49.00 monthly!", "$49 a month"),
        ("That is 49 dollars a month", "$49 a month"),
        ("That is $49 USD per month", "$49 a month"),
        ("forty-nine dollars a month", "$49 a month"),
        ("USD49 is the price", "$49"),
        ("costs 49 €", "€49"),
        ("49 euros", "€49"),
        ("$1,200.50 in total", "$1200.5"),
        ("1\u202f200 \u20ac", "1,200 euros"),
        ("1.200,50", "1.200,50"),
        ("EUR 49,90", "€49.90"),
        ("a two-year warranty", "2 years"),
        ("a 2 year warranty", "2 years"),
        ("It weighs 128GB", "128 GB"),
        ("at 3:00 PM", "3 pm"),
        ("at 3 p.m.", "3 pm"),
        ("from 9:30", "9:30"),
        ("on March 3rd", "March 3"),
        ("in 3 to 5 days", "3-5 days"),
        ("in 3\u20135 days", "3-5 days"),
        ("20 percent off", "20% off"),
        ("20% off", "20 percent off"),
        ("the HX-49 is gray", "grey"),
        ("call 0800-123-456", "0800-123-456"),
        ("\uff14\uff19 kilograms", "49 kg"),
        ("a Cafe\u0301 on Main Street", "caf\u00e9 on main street"),
        ("one month\u2019s notice", "1 month notice"),
        ("每月49元", "49元"),
        ("颜色是绿色的", "绿色"),
        ("\u0664\u0669 days", "49 days"),
        ("between -5 and 5", "-5"),
    ],
)
def test_another_spelling_of_a_fact_states_it(text, fact):
    assert states_fact(text, fact)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("It costs $490 a month", "$49 a month"),
        ("It costs $149 a month", "$49 a month"),
        ("It costs $49.50 a month", "$49 a month"),
        ("It costs $4.9 a month", "$49 a month"),
        ("It costs $1,490", "$490"),
        ("It costs 49 a month", "$49 a month"),
        ("It costs €49", "$49"),
        ("It costs $49", "$49 a month"),
        ("It costs $49 a year", "$49 a month"),
        ("A month costs $49", "$49 a month"),
        ("$49 for the first month", "$49 a month"),
        ("in 3-5 days", "5 days"),
        ("in 3 to 5 days", "5 days"),
        ("from $135 to $140", "$135"),
        ("from $135 to $140", "$140"),
        ("at 19:30", "9:30"),
        ("at 3:30 pm", "3 pm"),
        ("version 1.2.3", "1.2"),
        ("the HX49", "49"),
        ("49th place", "49"),
        ("-5 degrees", "5 degrees"),
        ("Greenland", "green"),
        ("", "green"),
        ("green", ""),
        ("!!!", "!!!"),
        ("the", "the"),
    ],
)
def test_something_else_does_not_state_the_fact(text, fact):
    assert not states_fact(text, fact)


def test_any_accepted_wording_will_do_and_none_is_not_enough():
    assert states_fact("a week from today", ["7 days", "a week"])
    assert not states_fact("a fortnight", ["7 days", "a week"])
    assert not states_fact("a fortnight", [])


def test_negation_and_questions_are_not_seen_as_the_module_says():
    assert states_fact("It is not $49. Is it $49?", "$49")


def test_a_range_does_not_swallow_what_is_no_range():
    assert fact_tokens("ring 5 to $7") == ("ring", "5", "to", "$", "7")
    assert fact_tokens("from $3 to $5") == ("$", "3-5")
    assert fact_tokens("zero to one") == ("0-1",)


def test_the_currency_stands_before_its_amount_once():
    assert fact_tokens("$49 dollars") == fact_tokens("49 dollars") == fact_tokens("USD 49") == ("$", "49")
    assert fact_tokens("3 days, $49") == ("3", "day", "$", "49")


def test_number_words_are_digits():
    assert fact_tokens("twenty four, twenty ten, ninety") == ("24", "20", "10", "90")


def test_only_assistant_turns_state_facts():
    turns = said("Hello.", "It costs $2.", "As I said, $2, and it is green.")
    assert stated_topics(turns, {"price": "$2", "colour": "green", "echo": "$1"}) == {"price": [1, 2], "colour": [2]}


def test_a_topic_is_provided_when_its_fact_is_stated_not_when_it_is_named():
    turns = said("The price? Ask me about the warranty.", "The warranty is 2 years.")
    facts = {"price": "$49", "warranty": ["2 years", "24 months"]}
    assert provided_topics(turns, facts, ["price", "warranty"]) == {"price": False, "warranty": True}


def test_a_topic_without_a_fact_is_looked_for_by_keyword():
    turns = said("Our prices start low, and orders are easy.")
    assert provided_topics(turns, None, ["pricing", "ordering", "return_policy", "..."]) == {
        "pricing": True,
        "ordering": True,
        "return_policy": False,
        "...": False,
    }


def test_facts_that_nothing_can_state_are_found():
    assert unmatchable_facts({"a": "...", "b": "2 years", "c": ["2", "the"], "d": []}) == ["a", "c", "d"]


def test_a_longer_fact_implies_the_shorter_one_in_it():
    assert implies("$49 a month", "$49")
    assert not implies("$49", "$49 a month")
    assert not implies(["$49", "2 years"], "$49")


def test_figures_are_the_numbers_in_digits_and_words():
    text = "Two of 3-5, $1,200.50, at 9:30 on the 3rd, twenty-four, one HX49"
    assert figures(text) == {"2", "3", "5", "1200.5", "9", "30", "24"}
    assert figures("1 or zero, -1") == {"1"}


def test_inflections_have_one_stem():
    assert len({stem(word) for word in ("price", "prices", "priced", "pricing")}) == 1
    assert stem("red") == "red"


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "1,111", "1.0", "-1", "1-", "1 to ", "$", "$1 ", "p. m", "\u0600", "two ", "twenty ", "x1", "\ufdfa"],
)
def test_time_is_linear_in_the_text(piece):
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        started = time.thread_time()  # of this thread alone: what else the machine does is no matter
        states_fact(text, "$49 a month")
        figures(text)
        return time.thread_time() - started

    seconds(1000)
    # Ten times the text takes ten times as long where it is linear, a hundred times where it is quadratic.
    assert min(seconds(80_000) for _ in range(2)) < 40 * min(seconds(8_000) for _ in range(3)) + 0.05


@given(st.text(), st.text())
def test_a_text_states_itself_and_stays_stated_in_a_longer_text(fact, more):
    stated = states_fact(fact, fact)
    assert stated == bool(fact_tokens(fact))
    assert states_fact(f"{more} . \n {fact} . \n {more}", fact) >= (stated and fact[:1].isalpha() and fact.isalpha())


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_number_states_itself_alone(one, other):
    assert states_fact(f"It costs ${one:,}.", f"${other}") == (one == other)


def test_tens_take_up_one_number_word_at_most():
    assert fact_tokens("twenty-four, one, twenty one") == ("24", "1", "21")
