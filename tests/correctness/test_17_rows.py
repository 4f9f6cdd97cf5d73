"""Row 17. A conversation in several rows counted as several: those with rewritten histories dominate the step."""

import pytest

from stateset_agents.training.samples import samples_of


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
def test_a_conversation_in_three_rows_has_the_gradient_of_the_one_row(kit, normalization):
    """Three replies in one row, or each in a row of its own with the earlier ones as context.

    Mutation: in training/learner.py the length of the first row for the conversation's: fails with 0.57; each row with
    the weight of a conversation: fails with 4.2.
    """
    prompt, users = kit.ids(8, 1), [kit.ids(4, 2), kit.ids(3, 3)]
    replies = [kit.ids(5, 4), kit.ids(6, 5), kit.ids(2, 6)]
    one = [kit.row((prompt, False), (replies[0], True), (users[0], False), (replies[1], True), (users[1], False),
                   (replies[2], True))]  # fmt: skip
    second = [*prompt, *replies[0], *users[0]]
    third = [*second, *replies[1], *users[1]]
    three = [
        kit.row((prompt, False), (replies[0], True)),
        kit.row((second, False), (replies[1], True)),
        kit.row((third, False), (replies[2], True)),
    ]
    other = [kit.row((prompt, False), (kit.ids(9, 7), True))]
    split, whole = (
        kit.gradient([kit.group((1.0, rows), (0.0, other))], loss_normalization=normalization) for rows in (three, one)
    )
    assert kit.gap(split, whole) < 5e-6


def test_the_rows_of_a_conversation_stay_in_one_micro_batch_and_count_once(kit):
    """Nine rows of eight conversations, two conversations a micro-batch.

    Mutation: micro-batches of rows in training/learner.py: fails with a row left over.
    """
    learner = kit.learner(batch_size=2)
    parts = learner.micro_batch.cut(samples_of(kit.two_groups(), learner.config, 20))
    sizes = [(len(part), len({sample.conversation for sample in part})) for part in parts]
    assert sizes == [(2, 2), (2, 2), (2, 2), (3, 2)]
