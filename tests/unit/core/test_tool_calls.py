"""Calls of tools among the turns of a conversation: what is a reply, and what each turn earned."""

from stateset_agents.core.facts import provided_topics
from stateset_agents.core.reward import ConcisenessReward, HelpfulnessReward, RewardFunction, RewardResult
from stateset_agents.core.rewards.text import exchanges
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult, replies
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup

CALL = ConversationTurn("assistant", '{"name": "price"}', tool_calls=(ToolCall("price", {"of": "bike"}),))
RESULT = ConversationTurn("tool", "The bike costs $90.", tool_result=ToolResult("price", seconds=0.25))
TURNS = [
    ConversationTurn("user", "How much is the bike?"),
    CALL,
    RESULT,
    CALL,
    RESULT,
    ConversationTurn("assistant", "I have looked it up."),
    ConversationTurn("user", "And?"),
    ConversationTurn("assistant", "The bike costs $90."),
]


class PerReply(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(1.0, turn_rewards=[0.25, 0.75])


def test_replies_are_the_assistant_turns_that_no_tool_answers():
    assert [turn.content for turn in replies(TURNS)] == ["I have looked it up.", "The bike costs $90."]


def test_calls_count_neither_as_length_nor_as_replies_but_are_turns_of_the_agent():
    trajectory = MultiTurnTrajectory("s", turns=TURNS)
    assert trajectory.length == 2
    assert len(trajectory.assistant_turns) == 4


def test_what_the_agent_tells_a_tool_it_has_not_told_the_user():
    secret = [ConversationTurn("user", "Price?"), ConversationTurn("assistant", "$90"), RESULT]
    told = ConversationTurn("assistant", "It costs money.")
    assert provided_topics([*secret, told], {"price": "$90"}, ["price"]) == {"price": False}
    assert provided_topics(TURNS, {"price": "$90"}, ["price"]) == {"price": True}


def test_a_reply_answers_the_user_and_not_the_tool():
    first, second = exchanges(TURNS)
    assert first.asked == "How much is the bike?"
    assert (first.heard, second.heard) == ("", "\nHow much is the bike?")
    assert (second.asked, second.said) == ("And?", ("I have looked it up.",))


async def test_a_share_for_each_reply_leaves_the_calls_without_one():
    assert (await PerReply().evaluate(TURNS)).turn_rewards == [0.0, 0.0, 0.25, 0.75]


async def test_a_share_for_each_assistant_turn_is_taken_as_it_is():
    class PerTurn(RewardFunction):
        async def compute_reward(self, turns, context=None):
            return RewardResult(1.0, turn_rewards=[0.5, 0.25, 0.25, 0.0])

    assert (await PerTurn().evaluate(TURNS)).turn_rewards == [0.5, 0.25, 0.25, 0.0]


async def test_built_in_rewards_judge_the_same_with_and_without_the_calls():
    spoken = [turn for turn in TURNS if turn is not CALL and turn is not RESULT]
    for reward in (ConcisenessReward(), HelpfulnessReward()):
        assert (await reward.evaluate(TURNS)).score == (await reward.evaluate(spoken)).score


def test_json_says_what_was_called_and_how_it_went():
    assert CALL.to_dict()["tool_calls"] == [{"name": "price", "arguments": {"of": "bike"}}]
    failed = ConversationTurn("tool", "no", tool_result=ToolResult("price", ToolError.TIMEOUT, 1.23456, cut=True))
    expected = {"name": "price", "ok": False, "seconds": 1.2346, "error": "timeout", "cut": True}
    assert failed.to_dict()["tool_result"] == expected


def test_a_call_belongs_to_the_move_of_the_reply_that_it_leads_to():
    trajectory = MultiTurnTrajectory("s", turns=TURNS, turn_rewards=[0.25, 0.0, 0.5, 1.0])
    assert trajectory.moves == [0, 0, 0, 1]
    assert trajectory.move_rewards == [0.75, 1.0]
    cut = MultiTurnTrajectory("s", turns=TURNS[:5])
    assert cut.moves == [0, 0]


def test_a_group_whose_moves_earned_the_same_teaches_nothing_whatever_was_called():
    plain = [turn for turn in TURNS if turn is not CALL and turn is not RESULT]
    some = MultiTurnTrajectory("s", turns=TURNS, turn_rewards=[0.0, 0.0, 1.0, 0.0], reward=1.0)
    other = MultiTurnTrajectory("s", turns=plain, turn_rewards=[1.0, 0.0], reward=1.0)
    assert not TrajectoryGroup("s", [some, other]).teaches
