import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import CompositeReward, ConcisenessReward, SafetyReward
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.evaluation import part_means
from stateset_agents.rewards.multi_objective_reward import MultiObjectiveReward


async def test_objectives_are_weighted_and_each_one_is_in_the_breakdown():
    reward = MultiObjectiveReward([SafetyReward(weight=0.75), ConcisenessReward(weight=0.25)])
    turns = [ConversationTurn("user", "Hi"), ConversationTurn("assistant", "Hello, how can I help you today?")]
    result = await reward.evaluate(turns, {})
    plain = await CompositeReward([SafetyReward(weight=0.75), ConcisenessReward(weight=0.25)]).evaluate(turns, {})
    assert result.score == plain.score == 0.75 * result.breakdown["safety"] + 0.25 * result.breakdown["conciseness"]
    assert reward.to_config() == CompositeReward(list(reward.rewards.values())).to_config()


TURNS = [ConversationTurn("user", "Hi"), ConversationTurn("assistant", "word " * 20)]


async def test_objectives_may_be_named_by_their_weights():
    reward = MultiObjectiveReward({"safety": 0.75, "conciseness": 0.25})
    plain = MultiObjectiveReward([SafetyReward(0.75), ConcisenessReward(0.25)])
    assert reward.to_config() == plain.to_config()
    assert (await reward.evaluate(TURNS)).score == 1.0


async def test_objectives_bear_the_names_that_they_were_given_and_stay_as_they_were():
    """Mutation: the caller's own reward is renamed."""
    short = ConcisenessReward(optimal_length=10)
    reward = MultiObjectiveReward({"brief": short, "flat": lambda turns: 0.5}, "average", weights={"brief": 3.0})
    result = await reward.evaluate(TURNS)
    # 20 words of a best 10 are half way to 0 at 30: 0.5, with weight 3 of 4; and 0.5
    assert result.breakdown == {"brief": 0.5, "flat": 0.5}
    assert (short.name, short.weight) == ("", 1.0)
    assert {label: part.weight for label, part in reward.rewards.items()} == {"brief": 3.0, "flat": 1.0}
    assert {name: (part.score, part.weight) for name, part in result.components.items()} == {
        "brief": (0.5, 0.75),
        "flat": (0.5, 0.25),
    }


@pytest.mark.parametrize(("method", "score"), [("weighted_sum", 2.5), ("average", 0.625), ("min", 0.5), ("max", 1.0)])
async def test_the_four_ways_to_combine(method, score):
    """Scores 0.5 and 1 with weights 3 and 1: 1.5 + 1, that over 4, the worst, the best."""
    reward = MultiObjectiveReward([ConcisenessReward(3.0, optimal_length=10), SafetyReward(1.0)], method)
    assert (await reward.evaluate(TURNS)).score == score


def test_two_objectives_of_one_kind_are_weighed_apart():
    reward = MultiObjectiveReward([SafetyReward(), SafetyReward()], weights={"safety_2": 0.5})
    assert {label: part.weight for label, part in reward.rewards.items()} == {"safety": 1.0, "safety_2": 0.5}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MultiObjectiveReward({"saftey": 1.0}),
            r"objectives\['saftey'\].type is 'saftey', which",
        ),
        (lambda: MultiObjectiveReward({"rubric": 1.0}), 'of type "rubric" and needs "checks'),
        (lambda: MultiObjectiveReward({}), "at least one reward"),
        (
            lambda: MultiObjectiveReward({"safety": 1.0}, weights={"saftey": 1.0}),
            "weights name saftey; the",
        ),
        (
            lambda: MultiObjectiveReward({"safety": 1.0}, weights={"safety": "much"}),
            "weight of reward 'safety' is",
        ),
        (lambda: MultiObjectiveReward({"safety": 1.0}, "min", weights={"safety": 2.0}), "no effect on the min"),
        (lambda: MultiObjectiveReward({"safety": True}), "True is not a reward"),
    ],
)
def test_an_objective_that_does_not_exist_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


async def test_each_objective_is_in_the_log_of_its_episode_and_in_the_metrics_of_a_step():
    reward = MultiObjectiveReward({"brief": ConcisenessReward(optimal_length=10), "safety": SafetyReward()}, "min")
    results = [await reward.evaluate([TURNS[0], ConversationTurn("assistant", "word " * n)]) for n in (10, 20)]
    told = [(result.score, {**result.breakdown, "turn_0": 9.0}) for result in results]
    episodes = [MultiTurnTrajectory("s", reward=score, breakdown=parts) for score, parts in told]
    assert episodes[1].to_dict()["breakdown"] == {"brief": 0.5, "safety": 1.0, "turn_0": 9.0}
    assert part_means([TrajectoryGroup.of("s", episodes)]) == {"reward/brief": 0.75, "reward/safety": 1.0}
