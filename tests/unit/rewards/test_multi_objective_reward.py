from stateset_agents.core.reward import CompositeReward, ConcisenessReward, SafetyReward
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.rewards.multi_objective_reward import MultiObjectiveReward


async def test_objectives_are_weighted_and_each_one_is_in_the_breakdown():
    reward = MultiObjectiveReward([SafetyReward(weight=0.75), ConcisenessReward(weight=0.25)])
    turns = [ConversationTurn("user", "Hi"), ConversationTurn("assistant", "Hello, how can I help you today?")]
    result = await reward.evaluate(turns, {})
    plain = await CompositeReward([SafetyReward(weight=0.75), ConcisenessReward(weight=0.25)]).evaluate(turns, {})
    assert result.score == plain.score == 0.75 * result.breakdown["safety"] + 0.25 * result.breakdown["conciseness"]
    assert reward.to_config() == CompositeReward(list(reward.rewards.values())).to_config()
