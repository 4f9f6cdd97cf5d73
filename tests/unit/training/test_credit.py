"""What an update made of its conversations, by turn and by token."""

from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.outcome import StopReason
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.training.conversations import conversations_of
from stateset_agents.training.credit import SPELLED_TOKENS, Credit, is_spelled
from stateset_agents.training.samples import policy_samples


def conversation(reward, *, stop=StopReason.STOP, edited=False):
    """Two replies of two tokens each: ids 1 2 | 3 4 | 5 | 6 7."""
    row = TokenRow()
    row.append_context([1, 2])
    first = row.append_sampled([3, 4], [-0.5, -0.25], 0)
    row.append_context([5])
    second = row.append_sampled([6, 7], [-1.0, -2.0], 0)
    if edited:
        first.unmask()
    turns = [
        ConversationTurn("user", "a"),
        ConversationTurn("assistant", "b", span=first, sampled_text="b", stop_reason=StopReason.STOP),
        ConversationTurn("user", "c"),
        ConversationTurn("assistant", "d", span=second, sampled_text="d", stop_reason=stop),
    ]
    return MultiTurnTrajectory("s", turns=turns, rows=[row], reward=reward, turn_rewards=[reward, 0.0])


def noted(episodes, *, spell=False, **settings):
    config = TrainingConfig.from_profile("balanced", scale_rewards="none", num_generations=2, **settings)
    group = TrajectoryGroup("s", episodes)
    talks = conversations_of([group], config)
    Credit(talks, policy_samples(talks, config, 100)).note(group if spell else None, lambda token: f"<{token}>")
    return episodes


def test_every_turn_has_the_advantage_of_its_conversation():
    good, bad = noted([conversation(1.0), conversation(0.0)])
    assert (good.advantages, bad.advantages) == ([0.5, 0.5], [-0.5, -0.5])
    assert good.tokens == []
    assert good.to_dict()["advantages"] == [0.5, 0.5]


def test_a_turn_that_was_edited_has_none():
    edited, other = noted([conversation(1.0, edited=True), conversation(0.0)], spell=True)
    assert (edited.advantages, other.advantages) == ([None, 0.5], [-0.5, -0.5])
    assert edited.tokens[0]["mask"] == [0, 0, 0, 0, 0, 1, 1]


def test_a_reply_that_was_cut_and_masked_has_none():
    cut, _ = noted([conversation(1.0, stop=StopReason.LENGTH), conversation(0.0)], spell=True, mask_truncated=True)
    assert cut.advantages == [0.5, None]
    assert cut.tokens[0]["advantages"] == [None, None, 0.5, 0.5, None, None, None]


def test_equal_rewards_give_0_and_that_is_not_untrained():
    one, two = noted([conversation(1.0), conversation(1.0)])
    assert one.advantages == two.advantages == [0.0, 0.0]


def test_a_turn_that_was_edited_has_none_where_nothing_was_learned_either():
    edited, other = noted([conversation(1.0, edited=True), conversation(1.0)])
    assert (edited.advantages, other.advantages) == ([None, 0.0], [0.0, 0.0])


def test_turns_may_have_advantages_of_their_own():
    good, bad = noted([conversation(1.0), conversation(0.0)], credit="turn", discount=0.5)
    assert good.advantages[0] > good.advantages[1]
    assert bad.advantages[0] < 0


def test_tokens_are_spelled_with_what_they_got():
    good, _ = noted([conversation(1.0), conversation(0.0)], spell=True)
    assert good.to_dict()["tokens"] == [
        {
            "pieces": ["<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>"],
            "mask": [0, 0, 1, 1, 0, 1, 1],
            "advantages": [None, None, 0.5, 0.5, None, 0.5, 0.5],
            "logprobs": [0.0, 0.0, -0.5, -0.25, 0.0, -1.0, -2.0],
            "cut": 0,
        }
    ]


def test_a_long_conversation_is_spelled_up_to_a_bound():
    long = conversation(1.0)
    long.rows[0].append_context([8] * SPELLED_TOKENS)
    noted([long, conversation(0.0)], spell=True)
    assert len(long.tokens[0]["pieces"]) == len(long.tokens[0]["logprobs"]) == SPELLED_TOKENS
    assert long.tokens[0]["cut"] == 7


def test_at_most_about_a_hundred_steps_of_a_run_are_spelled():
    for total in (1, 7, 99, 100, 101, 250, 100_000):
        steps = [step for step in range(1, total + 1) if is_spelled(step, total)]
        assert steps[0] == 1
        assert len(steps) <= 101
        assert len(steps) >= min(total, 50)
