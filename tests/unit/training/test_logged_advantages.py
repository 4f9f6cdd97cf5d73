"""What an update notes in its conversations, by hand: three trained tokens, an edited turn, a secret."""

import pytest

from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.training.conversations import Conversation
from stateset_agents.training.credit import Credit, is_spelled
from stateset_agents.training.packing import Sample

TEXTS = {1: "Key? ", 2: "hunter", 3: "2hunter2", 4: " ok", 5: "!"}


def played() -> tuple[TrajectoryGroup, TokenRow]:
    """`Key? ` is read, `hunter2hunter2` said, ` ok` read, `!` said and then edited."""
    row = TokenRow()
    row.append_context([1])
    said = row.append_sampled([2, 3], [-0.5, -0.25], 0)
    row.append_context([4])
    edited = row.append_sampled([5], [-1.0], 0)
    edited.unmask()
    turns = [
        ConversationTurn("user", "Key?"),
        ConversationTurn("assistant", "hunter2hunter2", span=said),
        ConversationTurn("user", "ok"),
        ConversationTurn("assistant", "?", span=edited),
    ]
    episode = MultiTurnTrajectory(scenario_id="s", key="k/0", turns=turns, rows=[row], reward=1.0)
    return TrajectoryGroup.of("s", [episode]), row


def noted(group: TrajectoryGroup, row: TokenRow, *samples: Sample, spelled: bool = True) -> MultiTurnTrajectory:
    (episode,) = group.trajectories
    talk = Conversation(episode, 0, [row], [[0, 0]], 1.0)
    Credit([talk], samples).note(group if spelled else None, TEXTS.__getitem__)
    return episode


def test_a_turn_gets_the_mean_of_its_trained_tokens_and_an_edited_one_none():
    group, row = played()
    episode = noted(group, row, Sample(row, [0.5, 1.5], 1.0, 0, 0))
    assert episode.advantages == [1.0, None]
    assert episode.tokens == [
        {
            "pieces": ["Key? ", "hunter", "2hunter2", " ok", "!"],
            "mask": [0, 1, 1, 0, 0],
            "advantages": [None, 0.5, 1.5, None, None],
            "logprobs": pytest.approx([0.0, -0.5, -0.25, 0.0, -1.0]),
            "cut": 0,
        }
    ]


def test_a_conversation_that_taught_nothing_has_advantages_of_zero():
    episode = noted(*played(), spelled=False)
    assert (episode.advantages, episode.tokens) == ([0.0, None], [])


def test_a_secret_that_lies_across_tokens_is_not_spelled(monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2hunter2")
    (row,) = noted(*played()).tokens
    assert row["pieces"] == ["***"] * 5
    assert row["mask"] == [0, 1, 1, 0, 0]


def test_of_a_long_run_a_hundred_steps_are_spelled():
    assert sum(is_spelled(step, 1000) for step in range(1, 1001)) == 101  # the first, and each tenth
    assert [is_spelled(step, 3) for step in (1, 2, 3)] == [True, True, True]
