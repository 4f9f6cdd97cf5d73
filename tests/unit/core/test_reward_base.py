import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import RewardFunction, RewardResult, RewardType, reward_function
from stateset_agents.core.trajectory import ConversationTurn as Turn

TALK = [Turn("user", "one"), Turn("assistant", "a"), Turn("user", "two"), Turn("assistant", "bbb"), Turn("user", "bye")]


def contents(turns):
    return [turn.content for turn in turns]


class Length(RewardFunction):
    async def compute_reward(self, turns, context=None):
        spoken = [turn for turn in turns if turn.role == "assistant"]
        return RewardResult(score=sum(len(turn.content) for turn in spoken) / 4, breakdown={"turns": len(spoken)})


def recorder(reward_type, scores):
    seen = []
    remaining = list(scores)

    @reward_function(reward_type=reward_type)
    async def score(turns, context=None):
        seen.append(contents(turns))
        return remaining.pop(0)

    return score, seen


async def test_a_subclass_without_init_has_weight_name_type_and_attainable():
    reward = Length()
    assert (reward.weight, reward.label, reward.reward_type) == (1.0, "length", RewardType.SPARSE)
    assert reward.attainable is None
    result = await reward.evaluate(TALK)
    assert (result.score, result.breakdown, result.turn_rewards) == (1.0, {"turns": 2}, None)


async def test_a_subclass_whose_init_does_not_call_super_works():
    class Silent(Length):
        def __init__(self):
            self.extra = 1

    assert (await Silent().evaluate(TALK)).score == 1.0
    assert Silent().label == "silent"


def test_a_subclass_without_compute_reward_cannot_be_made():
    class Empty(RewardFunction):
        pass

    with pytest.raises(TypeError, match="compute_reward"):
        Empty()


async def test_sparse_looks_once_at_the_whole_conversation():
    reward, seen = recorder(RewardType.SPARSE, [0.5])
    result = await reward.evaluate(TALK)
    assert seen == [["one", "a", "two", "bbb", "bye"]]
    assert (result.score, result.turn_rewards) == (0.5, None)


async def test_immediate_looks_at_each_assistant_turn_with_what_it_answers():
    reward, seen = recorder(RewardType.IMMEDIATE, [1.0, 0.5])
    result = await reward.evaluate(TALK)
    assert seen == [["one", "a"], ["two", "bbb"]]
    assert (result.score, result.turn_rewards) == (0.75, [0.5, 0.25])
    assert result.breakdown == {"turn_0": 1.0, "turn_1": 0.5}


async def test_dense_looks_at_each_assistant_turn_with_everything_before_it():
    reward, seen = recorder("dense", [1.0, 0.5])
    result = await reward.evaluate(TALK)
    assert seen == [["one", "a"], ["one", "a", "two", "bbb"]]
    assert (result.score, result.turn_rewards) == (0.75, [0.5, 0.25])


async def test_cumulative_gives_each_turn_what_it_changed():
    reward, seen = recorder(RewardType.CUMULATIVE, [1.0, 0.25])
    result = await reward.evaluate(TALK)
    assert seen == [["one", "a"], ["one", "a", "two", "bbb"]]
    assert (result.score, result.turn_rewards) == (0.25, [1.0, -0.75])


async def test_a_turn_that_cannot_be_judged_leaves_the_conversation_unscored():
    reward, _ = recorder(RewardType.DENSE, [1.0, RewardResult.unscored("no idea")])
    result = await reward.evaluate(TALK)
    assert result.score is None
    assert result.metadata == {"unscored": "no idea"}


@pytest.mark.parametrize("kind", list(RewardType))
async def test_a_conversation_without_assistant_turns_is_looked_at_once(kind):
    reward, seen = recorder(kind, [0.0])
    assert (await reward.evaluate([Turn("user", "hm")])).score == 0.0
    assert seen == [["hm"]]


async def test_a_synchronous_compute_reward_that_returns_a_number_is_accepted():
    class Plain(RewardFunction):
        def compute_reward(self, turns, context=None):
            return True

    assert (await Plain().evaluate(TALK)).score == 1.0


@pytest.mark.parametrize(("value", "hint"), [(None, "`return` is missing"), ("0.5", "'0.5'"), ([1], "list|\\[1\\]")])
async def test_what_is_no_score_is_refused(value, hint):
    reward, _ = recorder(RewardType.SPARSE, [value])
    with pytest.raises(TypeError, match=hint):
        await reward.evaluate(TALK)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308, -1.1e12])
async def test_a_score_that_is_not_finite_or_too_large_to_compute_with_is_refused(value):
    reward, _ = recorder(RewardType.SPARSE, [value])
    with pytest.raises(ValueError, match="finite"):
        await reward.evaluate(TALK)
    with pytest.raises(ValueError, match=r"turn_rewards\[1\]"):
        RewardResult(1.0, turn_rewards=[1.0, value])


async def test_turn_rewards_must_match_the_turns_and_add_up_to_the_score():
    reward, _ = recorder(RewardType.SPARSE, [RewardResult(1.0, turn_rewards=[1.0])])
    with pytest.raises(ValueError, match="1 turn rewards for 2 assistant turns"):
        await reward.evaluate(TALK)
    reward, _ = recorder(RewardType.SPARSE, [RewardResult(1.0, turn_rewards=[0.5, 0.4])])
    with pytest.raises(ValueError, match=r"add up to 0\.9, but its score is 1"):
        await reward.evaluate(TALK)
    reward, _ = recorder(RewardType.SPARSE, [RewardResult(1.0, turn_rewards=[0.6, 0.4])])
    assert (await reward.evaluate(TALK)).turn_rewards == [0.6, 0.4]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", None, True])
def test_a_weight_that_is_no_finite_number_is_refused(weight):
    with pytest.raises(ConfigError, match="weight of reward 'length'"):
        Length(weight)


def test_an_unknown_reward_type_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="immediate, dense, cumulative, sparse"):
        Length(reward_type="now")
    assert Length(reward_type="immediate").reward_type is RewardType.IMMEDIATE


def test_a_reward_says_how_a_config_would_name_it():
    assert Length(0.5).to_config()["module"].endswith("Length")
    assert Length(0.5).to_config()["weight"] == 0.5
    assert Length().notices([{"id": "a"}]) == []
    assert Length().require([]) is None


def test_a_mean_over_no_turns_is_the_floor():
    assert RewardResult.mean([]).score == 0.0


def test_a_class_states_its_maximum():
    class Stars(Length):
        maximum = 5.0

    assert Stars().attainable == 5.0
