"""Task completion and tool success: what was done, and how the calls went."""

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import CompositeReward, TaskCompletionReward, ToolSuccessReward
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult
from stateset_agents.core.trajectory import ConversationTurn as Turn

SAID = [Turn("user", "Refund order 7."), Turn("assistant", "Done.")]


def call(name, error=None, content="ok", **arguments):
    """An assistant turn with one call, and what the tool said."""
    return [
        Turn("assistant", "<tool_call>", tool_calls=(ToolCall(name, arguments),)),
        Turn("tool", content, tool_result=ToolResult(name, error)),
    ]


def malformed():
    return [Turn("assistant", "<tool_call>{"), Turn("tool", "no call", tool_result=ToolResult("", ToolError.MALFORMED))]


def conversation(*calls):
    return [Turn("user", "Where is order 7?"), *(turn for one in calls for turn in one), Turn("assistant", "Here.")]


@pytest.mark.parametrize(
    ("required", "completed", "score"),
    [
        (["look_up", "refund"], ["look_up"], 0.5),
        (["look_up", "refund"], ["refund", "look_up"], 1.0),
        (["look_up", "refund"], ["look_up", "look_up", "look_up"], 0.5),
        (["refund", "refund"], ["refund"], 0.5),
        (["refund"], ["refund", "delete_account"], 1.0),
        (["refund"], [], 0.0),
        (["refund"], ["Refund"], 0.0),
        ([{"name": "refund", "id": 7}], [{"id": 7, "name": "refund"}], 1.0),
        (["ab"], "ab", 1.0),
    ],
)
async def test_the_share_of_required_actions_that_were_completed(required, completed, score):
    """Mutation: a set in place of the count, or the completed ones as the divisor."""
    context = {"required_actions": required, "completed_actions": completed, "success": True}
    assert (await TaskCompletionReward().evaluate(SAID, context)).score == score


async def test_without_partial_credit_only_all_of_the_actions_count():
    reward = TaskCompletionReward(partial=False)
    context = {"required_actions": ["a", "b"], "completed_actions": ["a"]}
    result = await reward.evaluate(SAID, context)
    assert (result.score, result.breakdown, result.metadata) == (0.0, {"completed": 0.5}, {"missing": ["b"]})
    assert (await reward.evaluate(SAID, {**context, "completed_actions": ["b", "a"]})).score == 1.0


@pytest.mark.parametrize(("success", "score"), [(True, 1.0), (False, 0.0), (None, None)])
async def test_where_nothing_is_required_the_environments_verdict_counts_and_without_one_nothing_is_scored(
    success, score
):
    """Mutation: no verdict as a reward of 0."""
    result = await TaskCompletionReward().evaluate(SAID, {"required_actions": [], "success": success})
    assert result.score == score
    assert (await TaskCompletionReward().evaluate(SAID)).score is None


def test_scenarios_that_name_nothing_to_do_are_named():
    some = [{"id": "a", "required_actions": ["x"]}, {"id": "b", "success_criteria": {"information_provided": ["p"]}}]
    assert TaskCompletionReward().notices(some) == []
    assert "1 of 3 scenarios (first: 'c')" in TaskCompletionReward().notices([*some, {"id": "c"}])[0]


async def test_what_the_assistant_claims_is_worth_nothing():
    turns = [Turn("user", "Refund it."), Turn("assistant", "I completed the actions look_up and refund. success: true")]
    context = {"required_actions": ["look_up", "refund"], "completed_actions": []}
    assert (await TaskCompletionReward().evaluate(turns, context)).score == 0.0


OK = call("look_up", order=7)
ATTEMPTS = {
    "one call that worked": ([OK], {}, 1.0),
    "one that failed": ([call("look_up", ToolError.FAILED)], {}, 0.0),
    "unknown, then right": ([call("lookup", ToolError.UNKNOWN_TOOL), OK], {}, 1 / 2),
    "malformed, bad arguments, right": ([malformed(), call("look_up", ToolError.BAD_ARGUMENTS), OK], {}, 1 / 3),
    "over time and over budget": ([call("a", ToolError.TIMEOUT), call("a", ToolError.BUDGET)], {}, 0.0),
    "the same call again": ([OK] * 4, {}, 1 / 4),
    "the same arguments in another order": ([call("f", a=1, b=2), call("f", b=2, a=1)], {}, 1 / 2),
    "other arguments": ([call("f", a=1), call("f", a=2)], {}, 1.0),
    "one of one needed": ([OK], {"needed_calls": 1}, 1.0),
    "one of two needed": ([OK], {"needed_calls": 2}, 1 / 2),
    "nine different ones where two are needed": ([call("f", a=i) for i in range(9)], {"needed_calls": 2}, 2 / 9),
    "a call where none is needed": ([OK], {"needed_calls": 0}, 0.0),
    "none where none is needed": ([], {"needed_calls": 0}, 1.0),
    "none": ([], {}, 0.0),
    "none where two are needed": ([], {"needed_calls": 2}, 0.0),
    "none, left out": ([], {"without_calls": "unscored"}, None),
    "one that failed, not left out": ([call("f", ToolError.FAILED)], {"without_calls": "unscored"}, 0.0),
}


@pytest.mark.parametrize(("calls", "options", "score"), ATTEMPTS.values(), ids=ATTEMPTS)
async def test_the_share_of_calls_that_worked(calls, options, score):
    """Mutation: a repeated call that earns, or calls that do not enter the divisor."""
    result = await ToolSuccessReward(**options).evaluate(conversation(*calls))
    assert result.score == (score if score is None else pytest.approx(score))


async def test_no_number_of_further_calls_pays_more_than_the_needed_ones():
    needed = [call("f", a=1), call("f", a=2)]
    best = (await ToolSuccessReward(needed_calls=2).evaluate(conversation(*needed))).score
    for more in (needed, [call("f", a=i) for i in range(3, 50)], [call("g")], [malformed()]):
        scored = await ToolSuccessReward(needed_calls=2).evaluate(conversation(*needed, *more))
        assert scored.score < best
    failed = [call("f", ToolError.FAILED, a=9)]
    diluted = await ToolSuccessReward().evaluate(conversation(*failed, *[OK] * 50))
    assert diluted.score == pytest.approx(1 / 51)


async def test_several_calls_of_one_turn_are_told_apart():
    """Mutation: each result takes the turn's first call, so that the second is a repetition."""
    turn = Turn("assistant", "two", tool_calls=(ToolCall("f", {"a": 1}), ToolCall("f", {"a": 2}), ToolCall("g")))
    said = [Turn("tool", "same", tool_result=ToolResult(name)) for name in ("f", "f", "g")]
    result = await ToolSuccessReward().evaluate([Turn("user", "Go"), turn, *said, Turn("assistant", "Done.")])
    assert result.score == 1.0
    assert result.breakdown == {"calls": 3.0}


async def test_each_calling_turn_gets_its_share_and_the_reply_none():
    result = await ToolSuccessReward().evaluate(conversation(OK, call("x", ToolError.FAILED), OK, call("g")))
    assert result.turn_rewards == [0.25, 0.0, 0.0, 0.25, 0.0]
    assert result.breakdown == {"calls": 4.0, "tool_failed": 1.0, "repeated": 1.0}


async def test_a_call_that_failed_may_be_tried_again_with_the_same_arguments():
    retried = conversation(call("f", ToolError.TIMEOUT, a=1), call("f", a=1))
    assert (await ToolSuccessReward().evaluate(retried)).score == 0.5


async def test_silence_earns_nothing_where_no_call_is_needed():
    reward = ToolSuccessReward(needed_calls=0)
    assert (await reward.evaluate([Turn("user", "Hi"), Turn("assistant", " ")])).score == 0.0
    assert (await reward.evaluate([])).score == 0.0


async def test_shares_of_calls_add_up_in_a_sum():
    reward = CompositeReward([ToolSuccessReward(0.5), TaskCompletionReward(0.5)])
    context = {"required_actions": ["a", "b"], "completed_actions": ["a"]}
    result = await reward.evaluate(conversation(OK, malformed()), context)
    assert result.score == 0.5 * 0.5 + 0.5 * 0.5
    assert result.turn_rewards == [0.25, 0.0, 0.25]


@pytest.mark.parametrize("options", [{"needed_calls": -1}, {"needed_calls": 1.5}, {"needed_calls": True}])
def test_a_number_of_calls_that_is_none_is_refused(options):
    with pytest.raises(ConfigError, match="whole number of calls"):
        ToolSuccessReward(**options)


def test_an_unknown_choice_is_refused():
    with pytest.raises(ConfigError, match="zero, unscored"):
        ToolSuccessReward(without_calls="none")
