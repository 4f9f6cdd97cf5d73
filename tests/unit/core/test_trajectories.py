import json

import pytest

from stateset_agents.core.outcome import Outcome, StopReason
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup


def row():
    row = TokenRow()
    row.append_context([5, 6])
    span = row.append_sampled([7, 8], [-0.5, -1.5], version=2)
    row.append_context([9])
    return row, span


def test_a_row_keeps_its_four_lists_in_step():
    tokens, span = row()
    assert tokens.to_dict() == {
        "ids": [5, 6, 7, 8, 9],
        "mask": [0, 0, 1, 1, 0],
        "logprobs": [0.0, 0.0, -0.5, -1.5, 0.0],
        "versions": [-1, -1, 2, 2, -1],
    }
    assert (len(tokens), tokens.trained_tokens) == (5, 2)
    assert (span.start, span.end, span.ids, span.logprobs) == (2, 4, [7, 8], [-0.5, -1.5])


def test_a_reply_without_a_log_prob_for_each_token_is_refused():
    with pytest.raises(ValueError, match="2 sampled ids but 1 log-probs"):
        TokenRow().append_sampled([1, 2], [-0.5], version=0)


def test_an_unmasked_span_stays_as_context():
    tokens, span = row()
    span.unmask()
    assert (tokens.ids, tokens.mask, tokens.trained_tokens) == ([5, 6, 7, 8, 9], [0] * 5, 0)


def test_a_row_survives_json_and_a_torn_one_is_refused():
    tokens, _ = row()
    data = json.loads(json.dumps(tokens.to_dict()))
    assert TokenRow.from_dict(data) == tokens
    with pytest.raises(ValueError, match="differ in length"):
        TokenRow.from_dict({**data, "mask": [0]})


def test_a_turn_is_sampled_while_its_text_is_what_the_engine_said():
    _, span = row()
    turn = ConversationTurn("assistant", "hi", span=span, sampled_text="hi", stop_reason=StopReason.STOP)
    assert turn.sampled
    assert turn.to_message() == {"role": "assistant", "content": "hi"}
    turn.content += "!"
    assert not turn.sampled
    assert not ConversationTurn("assistant", "hi").sampled


def test_a_turn_is_written_with_its_time_in_utc():
    turn = ConversationTurn("assistant", "hi", metadata={"a": 1}, stop_reason=StopReason.LENGTH)
    data = turn.to_dict()
    assert data.pop("timestamp").endswith("Z")
    assert data == {"role": "assistant", "content": "hi", "metadata": {"a": 1}, "stop_reason": "length"}
    assert set(ConversationTurn("user", "hi").to_dict()) == {"role", "content", "timestamp"}


def trajectory(reward=1.0, outcome=Outcome.OK):
    turns = [ConversationTurn("user", "A"), ConversationTurn("assistant", "B")]
    return MultiTurnTrajectory("s", turns=turns, rows=[row()[0]], reward=reward, outcome=outcome)


def test_an_episode_knows_its_length_and_what_is_trained_of_it():
    episode = trajectory()
    assert (episode.length, episode.trained_tokens) == (1, 2)
    assert [turn.content for turn in episode.assistant_turns] == ["B"]


def test_an_episode_is_written_with_its_tokens_only_where_they_are_asked_for():
    episode = trajectory(None, Outcome.USER)
    episode.error, episode.edited_turns = "user: gone", 1
    data = json.loads(json.dumps(episode.to_dict()))
    assert (data["outcome"], data["reward"], data["error"], data["edited_turns"]) == ("user", None, "user: gone", 1)
    assert "rows" not in data
    assert episode.to_dict(tokens=True)["rows"] == [row()[0].to_dict()]
    assert "error" not in trajectory().to_dict()


def test_only_scored_episodes_share_a_baseline():
    good, cut = trajectory(1.0), trajectory(0.0, Outcome.TRUNCATED)
    unscored, failed = trajectory(None), trajectory(None, Outcome.ENVIRONMENT)
    group = TrajectoryGroup.of("s", [good, unscored, cut, failed])
    assert (group.trajectories, group.failures) == ([good, cut], [unscored, failed])
    assert (group.rewards, group.reward_diversity) == ([1.0, 0.0], 0.5)
    assert TrajectoryGroup.of("s", [good]).reward_diversity == 0.0


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_episodes_that_nothing_foreign_broke_are_scored(outcome):
    assert outcome.scored is (outcome in (Outcome.OK, Outcome.TRUNCATED))


def test_why_a_conversation_was_not_scored_is_written_down():
    episode = trajectory()
    episode.metadata["reward"] = {"unscored": "no ground truth", "object": object()}
    assert json.loads(json.dumps(episode.to_dict()))["unscored"] == "no ground truth"
    assert "unscored" not in trajectory().to_dict()
