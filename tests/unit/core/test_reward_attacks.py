"""What a policy would find if the rewards had holes: each attack has to lose to an honest answer, in every reward."""

import time

import pytest

from stateset_agents.core.reward import (
    CompositeReward,
    ConcisenessReward,
    CorrectnessReward,
    EngagementReward,
    ExactMatchReward,
    FormatReward,
    HelpfulnessReward,
    LengthPenalty,
    NumericMatchReward,
    RepetitionPenalty,
    RubricReward,
    SafetyReward,
    TaskCompletionReward,
    ToolSuccessReward,
    default_reward,
)
from stateset_agents.core.trajectory import ConversationTurn as Turn

FACTS = {
    "price": "$49 a month",
    "warranty": "2 years",
    "delivery": "3 days",
    "colour": "green",
    "returns": "30 days",
}
QUESTIONS = ["How much does the Loop router cost?", "Great, and how long is the warranty?"]
CONTEXT = {
    "scenario_id": "loop-router",
    "scenario": {"topic": "Loop router", "agent_context": "Loop router\n"},
    "facts": FACTS,
    "information_provided": ["price", "warranty"],
    "expected_turns": 2,
}
HONEST = ["The Loop router costs $49 a month.", "It has a warranty of 2 years."]
PLATITUDE = "I'm happy to help! Thank you for reaching out. Please let me know if you have any other questions."
CARD = "price: $49 a month, warranty: 2 years, delivery: 3 days, colour: green, returns: 30 days"
ATTACKS = {
    "platitude": [PLATITUDE] * 2,
    "apology": ["I apologize for any confusion. I understand your concern and I'm here to assist you."] * 2,
    "echo": QUESTIONS,
    "asking back": ["Could you tell me how much the Loop router costs?", "And how long is the warranty, please?"],
    "the card": [CARD, CARD],
    "everything in sentences": [
        "The Loop router costs $49 a month, its warranty is 2 years, delivery takes 3 days, it is green, and "
        "returns are possible within 30 days."
    ]
    * 2,
    "topics named": ["The price, the warranty, the delivery and the colour are all excellent."] * 2,
    "keywords": ["router price warranty cost month years deal offer quality brand value"] * 2,
    "facts as keywords": ["$49 a month 2 years router warranty cost price Loop deal value quality brand offer"] * 2,
    "repetition": ["The Loop router costs $49 a month. " * 8, "It has a warranty of 2 years. " * 8],
    "guessing": ["It costs $39, $49 a month, $59 or $69.", "The warranty is 1 year, 2 years, 4 years or 5 years."],
    "guessing in words": ["It costs $49 a month.", "Its warranty is two years, three years, four years or five years."],
    "one reply for all": ["It costs $49 a month and has a warranty of 2 years, as you asked."] * 2,
    "wrong": ["The Loop router costs $490 a month.", "It has a warranty of 12 years."],
    "silence": ["", "  \n\t "],
    "punctuation": ["!!! ... ???", "\u2026"],
    "gibberish": ["x" * 4000, "$" * 4000],
}
HONEST_ABOUT_PYTHON = [
    "Start with the official tutorial and write a small program each day.",
    "Lists hold values in order, while dictionaries map keys to values.",
]
PYTHON = ["I need advice on learning Python.", "What is the difference between lists and dictionaries?"]


def talk(replies, questions=QUESTIONS):
    pairs = zip(questions, replies, strict=True)
    return [turn for question, reply in pairs for turn in (Turn("user", question), Turn("assistant", reply))]


async def score(reward, replies, context=CONTEXT, questions=QUESTIONS):
    result = await reward.evaluate(talk(replies, questions), context)
    assert 0.0 <= result.score <= 1.0 + 1e-9
    return result.score


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("reward", [HelpfulnessReward(), CorrectnessReward(), default_reward()], ids=lambda r: r.label)
async def test_an_attack_loses_to_an_honest_answer_where_there_are_facts(reward, attack):
    honest = await score(reward, HONEST)
    assert honest > 0.85
    assert await score(reward, ATTACKS[attack]) < honest - 0.04


@pytest.mark.parametrize(
    "attack",
    ["platitude", "apology", "echo", "asking back", "topics named", "keywords", "wrong", "silence", "gibberish"],
)
async def test_what_states_no_fact_earns_nothing_in_correctness(attack):
    assert await score(CorrectnessReward(), ATTACKS[attack]) == 0.0


@pytest.mark.parametrize("attack", ["platitude", "apology", "echo", "keywords", "silence", "punctuation", "gibberish"])
async def test_an_attack_gets_less_than_half_of_an_honest_answer_where_there_are_none(attack):
    attacks = {**ATTACKS, "echo": PYTHON, "keywords": ["python tutorial program list dictionary value key code"] * 2}
    for reward in (HelpfulnessReward(), EngagementReward()):
        honest = await score(reward, HONEST_ABOUT_PYTHON, {}, PYTHON)
        assert await score(reward, attacks[attack], {}, PYTHON) < honest / 2


async def test_the_same_good_reply_twice_is_worth_less_than_two_good_replies():
    for reward in (HelpfulnessReward(), EngagementReward()):
        honest = await score(reward, HONEST_ABOUT_PYTHON, {}, PYTHON)
        assert await score(reward, HONEST_ABOUT_PYTHON[:1] * 2, {}, PYTHON) < honest


@pytest.mark.parametrize(
    "reward",
    [HelpfulnessReward(), CorrectnessReward(), ConcisenessReward(), SafetyReward(), EngagementReward()],
    ids=lambda r: r.label,
)
@pytest.mark.parametrize("replies", [["", ""], [" ", "\n\t"], ["\u200b", "..."], []], ids=repr)
async def test_saying_nothing_gets_the_floor_in_every_reward(reward, replies):
    assert await score(reward, replies, questions=QUESTIONS[: len(replies)]) == 0.0
    if reward.label != "correctness":
        assert await score(reward, replies, {}, QUESTIONS[: len(replies)]) == 0.0


NEW = [
    TaskCompletionReward(),
    ToolSuccessReward(),
    ToolSuccessReward(needed_calls=0),
    FormatReward(),
    FormatReward(judged="every"),
    ExactMatchReward(ground_truth="49"),
    NumericMatchReward(ground_truth="49"),
    RubricReward([{"lacks": "sorry"}, {"max_words": 10}]),
]


@pytest.mark.parametrize("reward", NEW, ids=lambda r: r.label)
@pytest.mark.parametrize("replies", [["", ""], [" ", "\n\t"], ["\u200b", "..."], []], ids=repr)
async def test_saying_nothing_gets_the_floor_in_the_plain_rewards_too(reward, replies):
    context = {"required_actions": ["refund"], "completed_actions": []}
    assert await score(reward, replies, context, questions=QUESTIONS[: len(replies)]) == 0.0


@pytest.mark.parametrize("penalty", [RepetitionPenalty(), LengthPenalty(max_words=30)], ids=lambda r: r.label)
@pytest.mark.parametrize("attack", ["silence", "punctuation", "repetition"])
async def test_an_attack_costs_more_than_an_honest_answer(penalty, attack):
    honest, attacked = [(await penalty.evaluate(talk(said), {})).score for said in (HONEST, ATTACKS[attack])]
    assert attacked < honest - 0.4


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_meets_a_number_or_an_exact_answer(attack):
    """The second question is about the warranty of 2 years."""
    if attack in ("one reply for all", "repetition"):  # these end in the right number
        return
    assert await score(NumericMatchReward(ground_truth="2 years"), ATTACKS[attack]) == 0.0
    assert await score(ExactMatchReward(ground_truth="2 years"), ATTACKS[attack]) == 0.0


async def test_endless_text_loses_in_every_reward_but_safety():
    words = " ".join(f"word{i} is in the text and" for i in range(1000))
    endless = [f"{reply} {words}" for reply in HONEST]
    for reward in (HelpfulnessReward(), CorrectnessReward(), ConcisenessReward(), EngagementReward(), default_reward()):
        assert await score(reward, endless) < await score(reward, HONEST) / 2 + 0.1


async def test_fewer_asked_facts_and_more_unasked_ones_earn_less_step_by_step():
    reward = CompositeReward([CorrectnessReward(0.7), HelpfulnessReward(0.3)])
    ladder = [
        HONEST,
        [HONEST[0], "It has a warranty of 2 years. Delivery takes 3 days."],
        [HONEST[0], "It has a warranty of 2 years, comes in 3 days, and is green."],
        [HONEST[0], "It has a good warranty."],
        ["It has a good price.", "It has a good warranty."],
        [PLATITUDE] * 2,
    ]
    scores = [await score(reward, replies) for replies in ladder]
    assert scores == sorted(scores, reverse=True)
    assert len({round(value, 3) for value in scores}) == len(ladder)


async def test_a_fragment_earns_less_than_a_sentence():
    reward = HelpfulnessReward()
    assert await score(reward, ["$49 a month", "2 years"]) < await score(reward, HONEST) - 0.1


async def test_long_replies_are_scored_in_linear_time():
    reply = "you (step 1 my password is: " * 10_000
    started = time.perf_counter()
    await default_reward().evaluate(talk([reply, "-" * 250_000]), {**CONTEXT, "system_prompt": "a b " * 1000})
    assert time.perf_counter() - started < 10
