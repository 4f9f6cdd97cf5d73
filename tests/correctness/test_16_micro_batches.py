"""Row 16. A mean over each micro-batch and then a mean of the means: results depend on the micro-batch's size."""

import pytest


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
def test_no_cut_into_micro_batches_changes_the_gradient(kit, normalization):
    """Eight conversations at once, by fours, by twos, one by one; their lengths are 4 to 12 tokens.

    Mutation: weights over their sum in the micro-batch, then a mean, in training/learner.py: fails with 10 %.
    """
    settings = {"loss_normalization": normalization, "beta": 0.04}
    whole = kit.gradient(batch_size=8, **settings)
    for size in (4, 2, 1):
        assert kit.gap(kit.gradient(batch_size=size, **settings), whole) < 2e-6


def test_no_cut_changes_what_is_measured(kit):
    """A mean over tokens, whichever micro-batch they were in.

    Mutation: the entropy over the first micro-batch's tokens in training/learner.py: fails.
    """
    metrics = [kit.learner(beta=0.04, batch_size=size).step(kit.two_groups(), max_tokens=20) for size in (8, 1)]
    for name in ("loss", "entropy", "mismatch_mean", "mismatch_size", "mismatch_max", "trained_tokens"):
        whole, cut = (getattr(one, name) for one in metrics)
        assert cut == pytest.approx(whole, rel=1e-5, abs=1e-7), name
