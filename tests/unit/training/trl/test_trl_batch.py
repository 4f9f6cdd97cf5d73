"""What goes back to TRL, written out by hand."""

from stateset_agents.core.outcome import Outcome
from stateset_agents.core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.training.trl.rollout import TRLBatch

FILLER = 9


def two_turns() -> TokenRow:
    """Opening 1 2, reply 3 4, the user's next words 5 6, reply 7."""
    row = TokenRow()
    row.append_context([1, 2])
    row.append_sampled([3, 4], [-0.1, -0.2], 0)
    row.append_context([5, 6])
    row.append_sampled([7], [-0.3], 0)
    return row


def group(*episodes: MultiTurnTrajectory) -> TrajectoryGroup:
    return TrajectoryGroup.of("s", episodes)


def episode(number, rows, reward=1.0, outcome=Outcome.OK) -> MultiTurnTrajectory:
    return MultiTurnTrajectory("s", key=f"0/0/s/{number}", rows=rows, reward=reward, outcome=outcome)


def test_a_conversation_is_one_row_in_which_only_the_models_own_words_are_trained():
    batch = TRLBatch.of([group(episode(0, [two_turns()], 0.5))], FILLER)
    assert batch.to_dict() == {
        "prompt_ids": [[1, 2]],
        "completion_ids": [[3, 4, 5, 6, 7]],
        "logprobs": [[-0.1, -0.2, 0.0, 0.0, -0.3]],
        "env_mask": [[1, 1, 0, 0, 1]],
        "episode_reward": [0.5],
    }


def test_an_edited_first_reply_belongs_to_the_prompt_and_an_edited_last_one_is_cut_off():
    first, last = two_turns(), two_turns()
    first.mask[2:4] = [0, 0]
    last.mask[6] = 0
    batch = TRLBatch.of([group(episode(0, [first]), episode(1, [last]))], FILLER)
    assert batch.prompt_ids == [[1, 2, 3, 4, 5, 6], [1, 2]]
    assert batch.completion_ids == [[7], [3, 4]]
    assert batch.env_mask == [[1], [1, 1]]


def test_rows_go_back_in_the_order_of_their_numbers_with_failures_in_their_places():
    failed = episode(1, [two_turns()], None, Outcome.REWARD)
    groups = [
        group(episode(2, [two_turns()], 0.2), failed, episode(10, [two_turns()], 0.9), episode(0, [two_turns()], 0.1))
    ]
    batch = TRLBatch.of(groups, FILLER)
    assert batch.rewards == [0.1, None, 0.2, 0.9]


def test_nothing_of_an_episode_that_was_not_scored_is_trained():
    failed = episode(0, [two_turns()], None, Outcome.USER)
    declined = episode(1, [two_turns()], None, Outcome.OK)
    batch = TRLBatch.of([group(failed, declined)], FILLER)
    assert batch.env_mask == [[0] * 5, [0] * 5]
    assert batch.rewards == [None, None]


def test_an_episode_in_which_the_model_said_nothing_still_has_a_row():
    batch = TRLBatch.of([group(episode(0, [], None, Outcome.AGENT))], FILLER)
    assert (batch.prompt_ids, batch.completion_ids, batch.env_mask, batch.logprobs) == ([[9]], [[9]], [[0]], [[0.0]])


def test_of_a_rewritten_history_the_row_with_the_most_trained_tokens_goes_back_and_the_others_are_counted():
    short = TokenRow()
    short.append_context([8])
    short.append_sampled([7], [-0.5], 0)
    batch = TRLBatch.of([group(episode(0, [short, two_turns(), short]))], FILLER)
    assert batch.completion_ids == [[3, 4, 5, 6, 7]]
    assert batch.dropped_rows == 2
