import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import (
    CompositeReward,
    CorrectnessReward,
    FunctionReward,
    GroupReward,
    HelpfulnessReward,
    RewardFunction,
    RewardResult,
    RewardType,
    SafetyReward,
    as_reward,
    reward_function,
)
from stateset_agents.core.trajectory import ConversationTurn as Turn

TALK = [Turn("user", "one"), Turn("assistant", "a"), Turn("user", "two"), Turn("assistant", "bbb")]


def fixed(score, weight=1.0, name="", turn_rewards=None):
    function = lambda turns, context=None: RewardResult(score, turn_rewards=turn_rewards)  # noqa: E731
    return FunctionReward(function, weight, name, maximum=1.0)


@pytest.mark.parametrize(
    ("method", "score", "attainable"),
    [("weighted_sum", 0.4 * 1.0 + 0.8 * 0.25, 1.2), ("average", 0.6 / 1.2, 1.0), ("min", 0.25, 1.0), ("max", 1.0, 1.0)],
)
async def test_each_way_to_combine_gives_the_number_worked_out_by_hand(method, score, attainable):
    reward = CompositeReward([fixed(1.0, 0.4, "a"), fixed(0.25, 0.8, "b")], method)
    result = await reward.evaluate(TALK)
    assert result.score == pytest.approx(score)
    assert result.breakdown == {"a": 1.0, "b": 0.25}
    assert reward.attainable == pytest.approx(attainable)


async def test_turn_rewards_are_weighted_and_a_part_without_them_counts_at_the_end():
    parts = [fixed(1.0, 0.5, "a", [0.25, 0.75]), fixed(0.5, 2.0, "b")]
    result = await CompositeReward(parts).evaluate(TALK)
    assert result.turn_rewards == [0.125, 0.375 + 1.0]
    assert result.score == 1.5
    assert (await CompositeReward(parts[1:]).evaluate(TALK)).turn_rewards is None


async def test_min_and_max_keep_the_turn_rewards_of_the_part_that_they_chose():
    parts = [fixed(1.0, 0.5, "a", [0.25, 0.75]), fixed(0.5, 2.0, "b")]
    assert (await CompositeReward(parts, "max").evaluate(TALK)).turn_rewards == [0.25, 0.75]
    result = await CompositeReward(parts, "min").evaluate(TALK)
    assert (result.turn_rewards, result.metadata) == (None, {"chosen": "b"})


async def test_each_part_is_evaluated_by_its_own_type():
    @reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE)
    async def length(turns, context=None):
        return len(turns[-1].content) / 4

    result = await CompositeReward([length]).evaluate(TALK)
    assert result.score == 0.5 * (0.25 + 0.75) / 2
    assert result.turn_rewards == [0.5 * 0.125, 0.5 * 0.375]
    assert result.components["length"].breakdown == {"turn_0": 0.25, "turn_1": 0.75}


async def test_a_part_that_has_nothing_to_judge_leaves_the_whole_unscored():
    result = await CompositeReward([fixed(1.0), CorrectnessReward()]).evaluate(TALK, {"scenario_id": "s"})
    assert result.score is None
    assert result.metadata["unscored"].startswith("correctness: scenario 's' has neither facts nor ground truth")


async def test_parts_of_the_same_name_are_numbered():
    reward = CompositeReward([fixed(1.0, name="a"), fixed(0.5, name="a"), fixed(0.0, name="a")])
    assert (await reward.evaluate(TALK)).breakdown == {"a": 1.0, "a_2": 0.5, "a_3": 0.0}


async def test_composites_nest():
    inner = CompositeReward([fixed(0.5, 2.0)], weight=0.1, name="inner")
    outer = CompositeReward([inner, fixed(1.0, 1.0, "b")])
    assert (await outer.evaluate(TALK)).score == pytest.approx(0.1 * 1.0 + 1.0)
    assert outer.attainable == pytest.approx(0.1 * 2.0 + 1.0)


def test_a_penalty_adds_nothing_to_what_is_attainable():
    assert CompositeReward([fixed(1.0, 1.0), fixed(1.0, -0.5)]).attainable == 1.0


@pytest.mark.parametrize(
    ("rewards", "method", "message"),
    [
        ([], "weighted_sum", "at least one reward"),
        ({"a": 1}, "weighted_sum", "at least one reward"),
        ([fixed(1.0)], "weighted_sums", "Did you mean 'weighted_sum'"),
        ([fixed(1.0)], "xyz", "Known: weighted_sum, average, min, max"),
        ([fixed(1.0, 0.0)], "weighted_sum", "every weight of the combined rewards is 0"),
        ([fixed(1.0, 0.0)], "average", "add up to 0"),
        ([fixed(1.0), 3], "weighted_sum", "3 is not a reward"),
    ],
)
def test_what_cannot_be_combined_is_refused(rewards, method, message):
    with pytest.raises(ConfigError, match=message):
        CompositeReward(rewards, method)


def test_a_composite_asks_its_parts_about_the_scenarios_and_repeats_no_notice():
    reward = CompositeReward([HelpfulnessReward(), HelpfulnessReward(), CorrectnessReward(), CorrectnessReward()])
    assert len(reward.notices([{"id": "a", "user_responses": ["Hi"]}])) == 2
    with pytest.raises(ConfigError) as caught:
        reward.require([{"id": "a"}])
    assert len(caught.value.problems) == 2
    reward.require([{"id": "a", "facts": {"price": "$1"}}])


async def test_a_decorated_function_is_a_reward_and_still_the_function():
    @reward_function(weight=0.5, reward_type=RewardType.IMMEDIATE, name="kind words")
    async def politeness(turns, context=None):
        """Count."""
        return len(turns) / 4

    assert isinstance(politeness, RewardFunction)
    assert (politeness.weight, politeness.label) == (0.5, "kind words")
    assert politeness.reward_type is RewardType.IMMEDIATE
    assert (politeness.__name__, politeness.__doc__) == ("politeness", "Count.")
    assert await politeness(TALK) == 1.0
    assert (await politeness.compute_reward(TALK[:2], {})).score == 0.5


async def test_the_decorator_works_bare_sync_and_without_context():
    @reward_function
    def count(turns):
        return len(turns)

    assert (count.label, count.weight) == ("count", 1.0)
    assert (await count.evaluate(TALK, {"facts": {}})).score == 4.0
    assert count.to_config()["module"].endswith(".count")


def test_a_function_that_cannot_take_turns_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"cannot be called with \(turns, context\) or \(turns\)"):
        reward_function(lambda: 1.0)
    with pytest.raises(ConfigError, match="cannot be called"):
        FunctionReward(3)
    with pytest.raises(ConfigError, match="weight of reward"):
        reward_function(weight="high")(lambda turns: 1.0)


class Forgetful(RewardFunction):
    async def compute_reward(self, turns):
        return 1.0


class Greedy(GroupReward):
    async def compare(self, conversations, context, more):
        return [0.0]


@pytest.mark.parametrize("kind", [Forgetful, Greedy])
def test_a_reward_whose_method_cannot_be_called_is_refused_before_a_run(kind):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\..* cannot be called with .*; define `async def"):
        as_reward(kind)
    with pytest.raises(ConfigError, match=rf"^rewards\[1\]: {kind.__name__}"):
        CompositeReward([SafetyReward(), kind()])


async def test_a_callable_whose_signature_is_unknown_is_given_the_context(monkeypatch):
    def without_signature(function):
        raise ValueError("no signature found")

    monkeypatch.setattr("inspect.signature", without_signature)
    assert (await FunctionReward(lambda turns, context: context["x"]).evaluate(TALK, {"x": 0.5})).score == 0.5


async def test_whatever_can_be_a_reward_becomes_one():
    class Foreign:
        weight = 0.25

        async def compute_reward(self, turns, context=None):
            return 0.5

    class Callable:
        def __call__(self, turns, context=None):
            return 0.75

    reward = HelpfulnessReward(0.3)
    assert as_reward(reward) is reward
    assert isinstance(as_reward(HelpfulnessReward), HelpfulnessReward)
    foreign = as_reward(Foreign())
    assert (foreign.weight, foreign.label, (await foreign.evaluate(TALK)).score) == (0.25, "Foreign", 0.5)
    assert (await as_reward(Callable()).evaluate(TALK)).score == 0.75
    assert (await as_reward([fixed(0.5), lambda turns: 1.0]).evaluate(TALK)).score == 1.5


@pytest.mark.parametrize("candidate", [None, 3, "helpfulness", {"type": "helpfulness"}, dict, object(), [], [None]])
def test_whatever_cannot_be_a_reward_is_refused_with_a_way_out(candidate):
    with pytest.raises(ConfigError, match=r"is not a reward|takes a list of at least one"):
        as_reward(candidate)


def test_a_reward_class_that_needs_arguments_is_refused():
    class Needy(RewardFunction):
        def __init__(self, judge):
            self.judge = judge

        async def compute_reward(self, turns, context=None):
            return RewardResult(self.judge)

    with pytest.raises(ConfigError, match="Needy cannot be made without arguments"):
        as_reward(Needy)


@pytest.mark.parametrize("method", ["weighted_sum", "average", "min", "max"])
def test_nobody_knows_the_maximum_of_a_whole_with_a_part_that_states_none(method):
    @reward_function
    def seven(turns):
        return 7.0

    assert seven.attainable is None
    assert CompositeReward([HelpfulnessReward(), seven], method).attainable is None
    assert CompositeReward([HelpfulnessReward(), seven.__wrapped__], method).attainable is None


def test_a_part_of_weight_0_does_not_hide_the_maximum_of_the_others():
    @reward_function(weight=0.0)
    def seven(turns):
        return 7.0

    assert CompositeReward([HelpfulnessReward(0.5), seven]).attainable == 0.5
    assert CompositeReward([HelpfulnessReward(0.5), seven], "max").attainable is None


def test_a_function_states_its_maximum():
    @reward_function(weight=0.5, maximum=10)
    def stars(turns):
        return 7.0

    assert CompositeReward([HelpfulnessReward(0.5), stars]).attainable == 5.5
    with pytest.raises(ConfigError, match="maximum of reward 'seven' is inf"):
        reward_function(maximum=float("inf"), name="seven")(lambda turns: 7.0)


def test_a_reward_that_compares_conversations_is_no_part_of_another():
    class Ranking(GroupReward):
        async def compare(self, conversations, context=None):
            return [0.0] * len(conversations)

    with pytest.raises(ConfigError, match="ranking judges groups as a whole and cannot be combined: use it alone"):
        CompositeReward([SafetyReward(), Ranking()])
