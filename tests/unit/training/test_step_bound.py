"""An update that changes too much is halved until it does not, on the line that it made."""

import math
from types import SimpleNamespace

import pytest
import torch

from stateset_agents.training.divergence import PolicyBefore
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.ranks import Alone
from stateset_agents.training.samples import samples_of
from stateset_agents.training.step_bound import HALVINGS, StepBound


class Policy:
    """One weight; at each of its two tokens the KL from the policy at -3 is the squared distance."""

    def __init__(self) -> None:
        self.masters = [torch.tensor([-3.0])]
        self.published = 0

    def publish(self) -> None:
        self.published += 1

    def measure(self):
        return 2 * (self.masters[0].item() + 3.0) ** 2, 2


@pytest.mark.parametrize(
    ("update", "share", "left"),
    [(0.3, 1.0, 0.3), (0.4, 0.5, 0.2), (-1.2, 0.25, -0.3), (1000.0, 1 / 1024, 0.9765625)],
)
def test_an_update_is_halved_until_its_kl_is_no_more_than_a_tenth_of_a_nat_and_at_most_ten_times(update, share, left):
    """Squares of 0.3 and 0.4 are 0.09 and 0.16. Mutation: the weights left where the update led; one halving alone."""
    policy = Policy()
    bound = StepBound(policy, policy.measure, Alone())
    policy.masters[0] += update
    assert bound.shorten() == share
    assert policy.masters[0].item() == pytest.approx(-3.0 + left, abs=1e-4)
    assert policy.published == round(-math.log2(share))


def test_an_update_to_nan_counts_as_too_large():
    policy = Policy()
    answers = iter([(math.nan, 1), (0.0, 1)])
    bound = StepBound(policy, lambda: next(answers), Alone())
    policy.masters[0] += 1.0
    assert bound.shorten() == 0.5


def test_ranks_decide_by_the_mean_over_all_their_tokens():
    """This rank's two tokens do not change, the other's six by 0.14 each: 0.84 / 8 is too much."""
    policy = Policy()
    others = SimpleNamespace(gather=lambda total, count: [(total, count), (0.84, 6)])
    bound = StepBound(policy, policy.measure, others)
    assert bound.shorten() == 1 / 2**HALVINGS


@torch.no_grad()
def test_a_policy_that_goes_on_saying_what_was_said_may_have_changed_all_the_same(kit):
    """The KL is over the whole vocabulary: the logit of a token that nobody sampled moves it.

    Mutation: the output layer not put back for the policy before (KL 0); a mean over the sampled tokens' log-probs.
    """
    learner = kit.learner()
    batch = PackedBatch.of(samples_of(kit.two_groups(), learner.config, 20), learner.device)
    before = PolicyBefore(learner.policy.packed, [batch], temperature=1.0)
    assert sum(part.kl for part in before.compared()) == 0.0
    states = learner.policy._states(batch)
    old = learner.policy.packed.head.logits(states).log_softmax(-1)
    unsaid = next(token for token in range(old.shape[1]) if token not in batch.targets.tolist())
    head = learner.policy.packed.head.weight
    kept = head.clone()
    head[unsaid] *= 20.0
    new = learner.policy.packed.head.logits(learner.policy._states(batch)).log_softmax(-1)
    moved = head.clone()
    parts = list(before.compared())
    assert torch.equal(head, moved)
    assert not torch.equal(head, kept)
    assert sum(part.kl for part in parts) == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-4)
    assert sum(len(part.before) for part in parts) == len(batch.targets)


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
