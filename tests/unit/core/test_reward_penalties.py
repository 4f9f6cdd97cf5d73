"""Penalties, with numbers worked out by hand."""

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import CompositeReward, CorrectnessReward, LengthPenalty, RepetitionPenalty
from stateset_agents.core.trajectory import ConversationTurn as Turn


def talk(*replies):
    return [turn for reply in replies for turn in (Turn("user", "And now?"), Turn("assistant", reply))]


REPETITION = {
    "nothing again": (["one two three four five"], [0.0]),
    # runs: abc bca cab abc bca -> 3 of 5 are fresh
    "within a reply": (["a b c a b c a"], [-2 / 5]),
    # the second reply's runs abc, bcd: abc was said
    "across replies": (["a b c", "a b c d"], [0.0, -1 / 2]),
    "the same reply again": (["Yes, of course.", "yes of course!"], [0.0, -1.0]),
    "short ones": (["Yes.", "Yes.", "No."], [0.0, -1.0, 0.0]),
    "one word over and over": (["spam " * 50], [-47 / 48]),
    "silence": (["", "one two three"], [-1.0, 0.0]),
    "no words": (["!!!! ...", "\u200b"], [-1.0, -1.0]),
    "letter case and forms": (["ONE two three", "\uff4fne Two THREE"], [0.0, -1.0]),
}


@pytest.mark.parametrize(("replies", "turns"), REPETITION.values(), ids=REPETITION)
async def test_the_share_of_runs_that_were_said_before(replies, turns):
    """Mutation: earlier replies forgotten, or a reply without words for nothing."""
    result = await RepetitionPenalty().evaluate(talk(*replies))
    assert result.turn_rewards == pytest.approx([share / len(turns) for share in turns])
    assert result.score == pytest.approx(sum(turns) / len(turns))


async def test_a_longer_run_forgives_more():
    said = talk("the Loop router costs $49", "the Loop router ships in May")
    scores = [(await RepetitionPenalty(ngram=n).evaluate(said)).score for n in (1, 2, 3, 4)]
    # second reply: 6 words, 3 said before; 5 pairs, 2; 4 triples, 1; 3 runs of four, none
    assert scores == pytest.approx([-3 / 6 / 2, -2 / 5 / 2, -1 / 4 / 2, 0.0])


async def test_what_the_user_or_a_tool_said_is_no_repetition():
    turns = [Turn("user", "one two three"), Turn("assistant", "call"), Turn("tool", "four five six")]
    turns += [Turn("assistant", "one two three four five six")]
    assert (await RepetitionPenalty().evaluate(turns)).score == 0.0


LENGTHS = {0: -1.0, 1: -0.75, 3: -0.25, 4: 0.0, 10: 0.0, 11: -0.2, 14: -0.8, 15: -1.0, 900: -1.0}


@pytest.mark.parametrize(("count", "score"), LENGTHS.items())
async def test_a_reply_costs_by_its_distance_from_the_band(count, score):
    """Mutation: no penalty below, or one that goes on beyond -1."""
    reward = LengthPenalty(min_words=4, max_words=10, margin=5)
    assert (await reward.evaluate(talk("word " * count))).score == pytest.approx(score)


async def test_without_a_margin_the_penalty_is_whole_at_twice_the_longest():
    reward = LengthPenalty(max_words=10)
    scores = [(await reward.evaluate(talk("word " * n))).score for n in (1, 10, 15, 20)]
    assert scores == pytest.approx([0.0, 0.0, -0.5, -1.0])


async def test_a_long_word_counts_as_the_words_it_could_hide():
    # 36 letters count three times: 3 words of a longest 2
    assert (await LengthPenalty(max_words=2, margin=2).evaluate(talk("x" * 36))).score == -0.5


async def test_the_penalty_is_the_mean_over_the_replies():
    result = await LengthPenalty(max_words=10).evaluate(talk("word " * 15, "word"))
    assert result.turn_rewards == [-0.25, 0.0]


@pytest.mark.parametrize("reward", [RepetitionPenalty(), LengthPenalty()], ids=lambda r: r.label)
async def test_a_conversation_without_a_reply_gets_the_floor(reward):
    assert (await reward.evaluate([])).score == -1.0
    assert (await reward.evaluate([Turn("user", "Hi")])).score == -1.0
    assert reward.attainable == 0.0


async def test_a_penalty_in_a_sum_takes_off_and_leaves_the_attainable():
    reward = CompositeReward([CorrectnessReward(1.0, "Paris"), RepetitionPenalty(0.5)])
    assert reward.attainable == 1.0
    result = await reward.evaluate(talk("It is Paris today.", "It is Paris today."))
    assert result.score == pytest.approx(0.95 - 0.5 * 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepetitionPenalty(ngram=0), "ngram is 0"),
        (lambda: RepetitionPenalty(ngram=True), "ngram is True"),
        (lambda: LengthPenalty(max_words=0), "max_words is 0"),
        (lambda: LengthPenalty(min_words=0), "min_words is 0"),
        (lambda: LengthPenalty(margin=0), "margin is 0"),
        (lambda: LengthPenalty(max_words=None), "max_words is None"),
        (lambda: LengthPenalty(max_words=3, min_words=5), "min_words is 5, which is more than max_words, 3"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
