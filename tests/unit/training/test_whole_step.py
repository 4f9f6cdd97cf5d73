"""Losses in which a token or a pair is compared with all others of the step, however the step is cut."""

import pytest
import torch

from stateset_agents.training.conversations import conversations_of
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.pairs import pairs_of
from stateset_agents.training.samples import policy_samples, preference_samples

PREFERENCES = [
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"),
]


def moved(learner):
    """The policy a little away from its reference, the same way each time."""
    generator = torch.Generator().manual_seed(0)
    for master in learner.weights.masters:
        master.data += 0.02 * torch.randn(master.shape, generator=generator)
    learner.weights.publish()
    return learner


def groups_of(kit, count=5):
    """Two groups of the kit and some more, the last one with equal rewards."""
    more = [
        kit.group(kit.ids(6 + n, 20 + n), [0.5, 0.0, 1.0, 0.2], [2 + n, 5, 3, 1 + n], 20 + n) for n in range(count - 3)
    ]
    return [*kit.two_groups(), *more, kit.flat_group()]


def gradient(kit, batch_size, **settings):
    learner = moved(kit.learner(kit.tiny(), batch_size=batch_size, **settings))
    measured = kit.step(learner, groups_of(kit))
    return learner.gradients[0], measured


def assert_no_cut_changes(kit, **settings):
    whole, measured = gradient(kit, 20, **settings)
    for size in (8, 2, 1):
        cut, other = gradient(kit, size, **settings)
        assert kit.relative_gap(cut, whole) < 1e-4
        assert other.loss == pytest.approx(measured.loss, rel=1e-4, abs=1e-6)
        assert other.masked_fraction == measured.masked_fraction
    return whole, measured


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "cispo", "sapo", "vespo"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_tokens_of_highest_entropy_are_those_of_the_step(kit, algorithm, share):
    """Mutations: a quantile of each micro-batch, a bonus over the micro-batch's tokens."""
    _, measured = assert_no_cut_changes(kit, algorithm=algorithm, top_entropy_share=share, entropy_coef=0.5, beta=0.1)
    assert measured.masked_fraction == pytest.approx(1.0 - share, abs=0.02)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_conversations_without_an_advantage_count_in_the_quantile(kit, beta):
    """As they do in TRL's. Mutation: the tokens that happen to go through the model for another term's sake."""
    _, measured = gradient(kit, 4, algorithm="grpo", top_entropy_share=0.5, beta=beta)
    assert measured.trained_tokens == sum(
        row.trained_tokens for group in groups_of(kit) for one in group.trajectories for row in one.rows
    )


def test_conversations_that_only_the_sampler_would_say_are_not_unlearned(kit):
    """Mutations: positive advantages masked, the sampler's side of the difference, a sign of the threshold."""
    learner = kit.learner(kit.tiny(), algorithm="grpo", off_policy_threshold=5.0)
    groups = kit.two_groups()
    for group in groups:
        for place, trajectory in enumerate(group.trajectories):
            for row in trajectory.rows:  # of these tokens the tiny model says -6.7 to -8.6 each
                row.logprobs[:] = [-0.1 if place % 2 else -6.0] * len(row.logprobs)
    left_out = [
        row.trained_tokens
        for group, places in zip(groups, ([1, 3], [1, 3]), strict=True)
        for place in places
        for row in group.trajectories[place].rows
    ]
    measured = kit.step(learner, groups)
    assert measured.masked_fraction == pytest.approx(sum(left_out) / measured.trained_tokens)
    assert_no_cut_changes(kit, algorithm="grpo", off_policy_threshold=6.8, num_iterations=2)


@pytest.mark.parametrize("kind", PREFERENCES)
def test_no_cut_changes_the_gradient_of_pairs(kit, kind):
    """Mutation: ranks within a micro-batch."""
    smoothing = {"label_smoothing": 0.1} if kind in ("exo_pair", "robust", "aot", "aot_unpaired") else {}
    plain, _ = assert_no_cut_changes(kit, algorithm="dpo", preference_loss=kind, preference_tail=0.5, **smoothing)
    other, _ = gradient(kit, 20, algorithm="dpo", preference_loss=kind, **smoothing)
    assert kit.relative_gap(plain, other) > 1e-3  # the tail counts


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "grpo", "off_policy_threshold": 6.8},
        {"algorithm": "grpo", "top_entropy_share": 0.5},
        {"algorithm": "grpo", "sampler_correction": "token_truncate", "sampler_correction_floor": 0.5},
        {"algorithm": "dpo", "preference_sft_weight": 0.5},
        {"algorithm": "dpo", "preference_divergence": "forward_kl"},
        {"algorithm": "dpo", "preference_divergence": "js"},
        {"algorithm": "dpo", "preference_divergence": "alpha"},
        {"algorithm": "dpo", "preference_divergence": "alpha", "preference_alpha": 0.2},
        {"algorithm": "dpo", "preference_loss": "robust", "label_smoothing": 0.2},
    ],
    ids=str,
)
def test_each_setting_has_an_effect_that_no_cut_changes(kit, settings):
    whole, _ = assert_no_cut_changes(kit, **settings)
    without = dict(list(settings.items())[:-1])
    assert kit.relative_gap(whole, gradient(kit, 20, **without)[0]) > 1e-3


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"algorithm": "grpo"}, 1),
        ({"algorithm": "grpo", "top_entropy_share": 0.5}, 2),
        ({"algorithm": "grpo", "off_policy_threshold": 1.0}, 1),
        ({"algorithm": "dpo"}, 1),
        ({"algorithm": "dpo", "preference_loss": "aot"}, 2),
    ],
    ids=str,
)
def test_a_comparison_costs_a_pass_before_each_update_and_none_where_the_step_is_one_micro_batch(kit, settings, passes):
    for batch_size, extra in ((20, 0), (2, passes - 1)):
        learner = kit.learner(kit.tiny(), batch_size=batch_size, num_iterations=2, **settings)
        counted = []

        def watched(batch, *rest, forward=learner.policy.forward, counted=counted, **options):
            counted.append(batch)
            return forward(batch, *rest, **options)

        learner.policy.forward = watched
        kit.step(learner, groups_of(kit))
        assert len(counted) == 2 * (1 + extra) * len({id(batch) for batch in counted})


def test_an_answer_of_two_rows_has_its_tail_at_the_end(kit):
    """The pack may lay rows out in another order than they were said. Mutation: places within a row."""
    group = kit.two_groups()[1]
    for trajectory, reward in zip(group.trajectories, (0.5, 0.5, 0.0, 1.0), strict=True):
        trajectory.reward = reward
    learner = kit.learner(algorithm="dpo")
    samples = preference_samples(conversations_of([group], learner.config))
    batch = PackedBatch.of(samples, torch.device("cpu"))
    # chosen: rows of 3 + 4 and of 5 tokens; rejected: one of 3 + 8
    ones = torch.arange(len(batch.targets), dtype=torch.float64) * 0.0 + 1.0
    pairs = pairs_of(batch, ones, ones, tail=0.0)
    assert [int(length) for length in pairs.lengths] == [12, 11]
    assert (pairs.chosen.item(), pairs.rejected.item()) == (11.0, 11.0)
    last = (batch.advantages > 0) & (batch.owners == batch.owners[batch.advantages > 0].max())
    marked = torch.zeros_like(ones)
    marked[last.nonzero()[-1]] = 1.0
    assert pairs_of(batch, marked, ones, tail=0.25).chosen.item() == 0.25
    marked[last.nonzero()[-1]], marked[last.nonzero()[-2]] = 0.0, 1.0
    assert pairs_of(batch, marked, ones, tail=0.25).chosen.item() == 1.0


def test_the_likelihood_beside_the_pairs_is_that_of_rejection_fine_tuning(kit):
    """Both learn the best conversation of each group. Mutation: a mean over the tokens of both answers."""
    settings = {"algorithm": "dpo", "batch_size": 2}
    learners = [
        kit.learner(kit.tiny(), **settings, preference_sft_weight=1.0),
        kit.learner(kit.tiny(), **settings),
        kit.learner(kit.tiny(), algorithm="rft", loss_normalization="token"),
    ]
    for learner in learners:
        kit.step(learner, groups_of(kit))
    both, pairs, likelihood = (learner.gradients[0] for learner in learners)
    assert kit.relative_gap({name: both[name] - pairs[name] for name in both}, likelihood) < 1e-4


def test_policies_without_such_a_loss_send_only_what_teaches_through_the_model(kit):
    config = kit.learner(algorithm="grpo").config
    talks = conversations_of([*kit.two_groups()[:1], kit.flat_group()], config)
    assert {sample.group for sample in policy_samples(talks, config, 20)} == {0}
