"""Row 1. A mean over each conversation first, then over conversations, lets a long wrong answer off lightly."""

import pytest
import torch

from stateset_agents.algorithms import policy_loss, token_weights
from stateset_agents.config.profiles import PROFILES
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.samples import samples_of


@pytest.mark.parametrize(
    ("normalization", "right", "wrong"),
    [
        ("token", -0.1, 0.1),
        ("constant", -0.05, 0.05),  # 2 conversations x at most 10 tokens
        ("sequence", -0.25, 0.0625),  # 4 to 1, and only where it was asked for by its name
    ],
)
def test_a_token_of_a_wrong_answer_weighs_as_much_as_one_of_a_right_answer_that_is_shorter(
    kit, normalization, right, wrong
):
    """A right answer of 2 tokens, a wrong one of 8, advantages +1 and -1: the loss's slope at each token.

    Mutation: 1 / (length x conversations) for "token" in algorithms/policy.py: fails with -0.25 and 0.0625. Weights
    over a row's own tokens in training/samples.py: fails too.
    """
    prompt = kit.ids(5, 0)
    short, long = (kit.row((prompt, False), (kit.ids(length, length), True)) for length in (2, 8))
    config = kit.config(loss_normalization=normalization, scale_rewards="none")
    samples = samples_of([kit.group((2.0, [short]), (0.0, [long]))], config, 10)
    batch = PackedBatch.of(samples, torch.device("cpu"))
    logprobs = torch.full((10,), -1.0, requires_grad=True)
    policy_loss(logprobs, logprobs.detach(), batch.advantages, batch.weights).loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([right] * 2 + [wrong] * 8, rel=1e-6)


@pytest.mark.parametrize(
    ("normalization", "constant", "expected"),
    [("token", 0, [0.1, 0.1]), ("sequence", 0, [0.25, 0.0625]), ("constant", 10, [0.05, 0.05])],
)
def test_what_a_token_of_a_short_and_of_a_long_conversation_weighs(normalization, constant, expected):
    """Mutation: the same one in algorithms/policy.py: fails with 0.25 and 0.0625 for "token"."""
    weights = token_weights(torch.tensor([2, 8]), normalization, constant=constant)
    assert weights.tolist() == expected
    assert weights.dtype == torch.float64


def test_no_profile_averages_over_conversations_first():
    """Mutation: "sequence" in a profile of config/profiles.py: fails with one name too many."""
    assert {profile.loss_normalization for profile in PROFILES.values()} == {"token", "constant"}
