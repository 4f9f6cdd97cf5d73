"""Turns as they are stored: the agent gets back what it said, the user what was heard."""

import json
from datetime import UTC, datetime, timedelta

from stateset_agents.api.store import StoredTurn
from stateset_agents.api.transcript import history_of, stored_reply
from stateset_agents.core.outcome import StopReason
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult
from stateset_agents.core.trajectory import ConversationTurn

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CALL = ToolCall("price", {"of": "tea"})


def test_a_move_with_tools_comes_back_as_it_was():
    result = ToolResult("price", ToolError.TIMEOUT, 30.0, cut=True)
    steps = [
        ConversationTurn("assistant", "I look. {...}", {"mood": 1}, NOON, tool_calls=(CALL,)),
        ConversationTurn("tool", "too late", {}, NOON, tool_result=result),
    ]
    said = ConversationTurn("assistant", "Sorry.", {"n": [1]}, NOON, stop_reason=StopReason.LENGTH, steps=steps)
    kept = stored_reply(said, NOON + timedelta(seconds=1))
    assert (kept.role, kept.content, kept.timestamp) == ("assistant", "Sorry.", NOON + timedelta(seconds=1))
    read = StoredTurn(kept.role, kept.content, kept.timestamp, json.loads(json.dumps(kept.data)))
    user = StoredTurn("user", "How much?", NOON)
    told = history_of([StoredTurn("assistant", "Hello!", NOON), user, read])
    assert told == [
        ConversationTurn("user", "How much?", {}, NOON),
        *steps,
        ConversationTurn("assistant", "Sorry.", {"n": [1]}, kept.timestamp),
    ]
    assert told[-1].stop_reason is StopReason.LENGTH


def test_calls_that_were_not_made_are_heard_by_nobody_and_known_to_the_agent():
    said = ConversationTurn("assistant", '{"name": "price"}', tool_calls=(CALL,))
    kept = stored_reply(said, NOON)
    assert kept.content == ""
    (_, again) = history_of([StoredTurn("user", "How much?", NOON), kept])
    assert (again.content, again.tool_calls) == ('{"name": "price"}', (CALL,))


def test_a_conversation_in_which_nobody_spoke_has_no_history():
    assert history_of([StoredTurn("assistant", "Hello!", NOON)]) == []
    assert history_of([]) == []
