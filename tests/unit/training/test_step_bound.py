"""An update that changes too much is halved until it does not, on the line that it made."""

import math
from types import SimpleNamespace

import pytest
import torch

from stateset_agents.training.ranks import Alone
from stateset_agents.training.step_bound import StepBound, most_change


class Policy:
    """One weight, which is the log-prob of both its tokens; a given entropy."""

    def __init__(self, weight: float, entropy: float) -> None:
        self.masters = [torch.tensor([weight])]
        self.entropy = entropy
        self.published = 0

    def publish(self) -> None:
        self.published += 1

    def measure(self):
        return self.masters[0].repeat(2), torch.full((2,), self.entropy)


def test_half_of_the_entropy_is_the_most_and_never_less_than_a_clip():
    assert [most_change(entropy) for entropy in (4.0, 0.5, 0.4, 0.1, 0.0)] == [2.0, 0.25, 0.2, 0.2, 0.2]


@pytest.mark.parametrize(
    ("update", "share", "left"),
    [(0.5, 1.0, 0.5), (-1.0, 1.0, -1.0), (1.1, 0.5, 0.55), (-8.0, 0.125, -1.0), (1000.0, 1 / 64, 15.625)],
)
def test_an_update_is_halved_until_it_changes_no_more_than_it_may_and_at_most_six_times(update, share, left):
    """Entropy 2: a log-prob may change by 1. Mutation: the weights left where the update led; one halving alone."""
    policy = Policy(-3.0, 2.0)
    bound = StepBound(policy, policy.measure, Alone())
    policy.masters[0] += update
    assert bound.shorten() == share
    assert policy.masters[0].item() == pytest.approx(-3.0 + left)
    assert policy.published == round(-math.log2(share))


def test_an_update_to_nan_counts_as_too_large():
    policy = Policy(-3.0, 2.0)
    answers = iter([torch.zeros(1), torch.tensor([math.nan]), torch.zeros(1)])
    bound = StepBound(policy, lambda: (next(answers), torch.full((1,), 2.0)), Alone())
    policy.masters[0] += 1.0
    assert bound.shorten() == 0.5


def test_ranks_decide_by_the_mean_over_all_their_tokens():
    """This rank's tokens do not change, the other one's by 3, and there are three times as many: 9 / 4 is too much."""
    policy = Policy(-3.0, 2.0)
    others = SimpleNamespace(gather=lambda total, count: [(total, count), (3.0 * 6 if total == 0.0 else 12.0, 6)])
    bound = StepBound(policy, policy.measure, others)
    assert bound.shorten() == 1 / 64


def test_the_update_of_a_learner_at_a_rate_too_high_is_that_at_a_lower_rate(kit):
    """AdamW is proportional to the rate. Mutation: `_move` without the bound; `take` that changes nothing."""
    learners = [kit.learner(learning_rate=rate, auto_adjust=adjust) for rate, adjust in ((0.4, True), (0.4, False))]
    begin = kit.masters(learners[0])
    shortened, whole = (kit.step(learner) for learner in learners)
    assert whole.step_share is None
    assert shortened.step_share < 1
    lower = kit.learner(learning_rate=0.4)
    lower.take(lower.config.model_copy(update={"learning_rate": 0.4 * shortened.step_share}), 1.0)
    kit.step(lower)
    assert kit.relative_gap(kit.masters(learners[0]), kit.masters(lower)) < 1e-5
    moved = kit.relative_gap(begin, kit.masters(learners[1]))
    assert kit.relative_gap(begin, kit.masters(learners[0])) < moved


def test_a_small_update_with_auto_adjust_is_that_without(kit):
    learners = [kit.learner(learning_rate=1e-4, auto_adjust=adjust) for adjust in (True, False)]
    shares = [kit.step(learner).step_share for learner in learners]
    assert shares == [1.0, None]
    one, other = (kit.masters(learner) for learner in learners)
    assert all(torch.equal(one[name], other[name]) for name in one)
